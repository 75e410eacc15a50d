# SPDX-License-Identifier: Apache-2.0
"""The collection as a site installs it: built from the checkout, used from an empty folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("archive")
    run(ROOT, place, "ansible-galaxy", "collection", "build", "--output-path", str(place))
    (built,) = place.glob("epic-gateway-*.tar.gz")
    return built


@pytest.fixture(scope="module")
def site(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder beside which the collection is installed."""
    place = tmp_path_factory.mktemp("site")
    options = ("--offline", "--collections-path", str(place / "collections"))
    run(place, place, "ansible-galaxy", "collection", "install", "--force", *options, str(archive))
    return place


def run(
    folder: Path, home: Path, program: str, *arguments: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a program of Ansible with no configuration but where the site's collections are."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {
        "ANSIBLE_COLLECTIONS_PATH": str(home / "collections"),
        "ANSIBLE_HOME": str(home / ".ansible"),
        **more,
    }
    command = [str(BIN / program), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)


def test_it_holds_what_ansible_uses_and_nothing_else(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
    tops = {name.partition("/")[0] for name in names}
    assert {"plugins", "roles", "playbooks", "meta", "site.yml", "README.md"} <= tops
    assert tops.isdisjoint({"src", "tests", "collections", "build", "bpf", ".venv", ".cache", ".git"})
    assert not [name for name in names if name.endswith(".pyc")]


def test_it_leaves_out_the_lab_and_the_demo(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    assert not [name for name in names if re.search(r"(^|[/_])(lab|demo)([/_.]|$)", name)]


def test_it_holds_its_licences(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
    assert {"LICENSE", "LICENSES/GPL-3.0-or-later.txt"} <= names


def test_its_playbooks_are_whole(site: Path) -> None:
    (site / "none.yml").write_text("epic_control: {hosts: {}}\n")
    playbooks = (site / "collections/ansible_collections/epic/gateway/playbooks").glob("*.yml")
    names = [f"epic.gateway.{playbook.stem}" for playbook in playbooks]
    assert len(names) > 5
    run(site, site, "ansible-playbook", "-i", "none.yml", "--syntax-check", *names)


def test_one_group_sets_how_modules_reach_the_api(site: Path) -> None:
    """Every module that has the options of the connection is in the group, and no other."""
    found = site / "collections/ansible_collections/epic/gateway"
    modules = {
        path.stem
        for path in (found / "plugins/modules").glob("*.py")
        if "CONNECTION_SPEC" in path.read_text()
    }
    assert modules == set(yaml.safe_load((found / "meta/runtime.yml").read_text())["action_groups"]["epic"])


def test_modules_and_roles_are_found(site: Path) -> None:
    modules = [f"epic.gateway.{module}" for module in ("files", "gateway_instances", "node")]
    documented = json.loads(run(site, site, "ansible-doc", "--json", *modules).stdout)
    assert all(documented[module]["doc"]["options"] for module in modules)
    listed = run(site, site, "ansible-doc", "-t", "role", "--list", "epic.gateway").stdout
    for role in ("base", "cluster", "control_plane", "gateway_node", "linux_controller", "router"):
        assert f"epic.gateway.{role}:" in listed


def test_a_playbook_uses_them(site: Path) -> None:
    target = site / "written"
    (site / "play.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.include_role: {name: epic.gateway.cluster}\n"
        f"    - epic.gateway.files:\n        files: [{{path: {target}, content: found}}]\n"
    )
    python = f"ansible_python_interpreter={sys.executable}"
    run(site, site, "ansible-playbook", "-i", "localhost,", "-c", "local", "-e", python, "play.yml")
    assert target.read_text() == "found"


def test_without_a_bundle_it_says_how_to_get_one(site: Path) -> None:
    (site / "hosts.yml").write_text("epic_control: {hosts: {localhost: {ansible_connection: local}}}\n")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run(site, site, "ansible-playbook", "-i", "hosts.yml", "epic.gateway.site")
    assert "Set cluster_bundle to the" in failed.value.stdout + failed.value.stderr


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release's archive, with a bundle of which only the manifest is there."""
    content = tmp_path / "content"
    (content / "bundle").mkdir(parents=True)
    (content / "bundle/manifest.json").write_text('{"envoy": {"version": "9.9"}}\n')
    sums = subprocess.run(["sha256sum", "bundle/manifest.json"], cwd=content, capture_output=True, check=True)
    (content / "SHA256SUMS").write_bytes(sums.stdout)
    subprocess.run(["tar", "-cf", tmp_path / "epic-9.9-x-1.tar", "-C", content, "."], check=True)
    return tmp_path / "epic-9.9-x-1.tar"


def take(site: Path, release: Path) -> subprocess.CompletedProcess[str]:
    """Let the role base take the archive for the bundle."""
    (site / "bundle.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n"
        f"  vars: {{cluster_bundle: {release}, cluster_control_host: localhost}}\n  tasks:\n"
        "    - ansible.builtin.include_role: {name: epic.gateway.base, tasks_from: bundle, public: true}\n"
        "    - ansible.builtin.debug: {msg: 'Envoy {{ _cluster_manifest.envoy.version }}'}\n"
    )
    options = ("-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}")
    return run(site, site, "ansible-playbook", *options, "bundle.yml", XDG_CACHE_HOME=str(release.parent))


def test_a_releases_archive_is_a_bundle(site: Path, release: Path) -> None:
    assert "Envoy 9.9" in take(site, release).stdout
    assert "Envoy 9.9" in take(site, release).stdout, "it is unpacked once"
    assert [path.name for path in (release.parent / "epic").iterdir()] == ["epic-9.9-x-1"]


def test_a_damaged_archive_is_refused(site: Path, release: Path) -> None:
    (release.parent / "content/bundle/manifest.json").write_text("{}\n")
    subprocess.run(["tar", "-cf", release, "-C", release.parent / "content", "."], check=True)
    with pytest.raises(subprocess.CalledProcessError) as failed:
        take(site, release)
    assert "bundle/manifest.json: FAILED" in failed.value.stdout + failed.value.stderr


def test_a_check_passes_over_a_validation_that_is_not_installed_yet(site: Path) -> None:
    text = (
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n    - epic.gateway.files:\n"
        f"        files: [{{path: {site}/checked, content: x, validate: COMMAND %s}}]\n"
    )
    options = ("-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}")
    (site / "check.yml").write_text(text.replace("COMMAND", "no-such-command"))
    assert "changed=1" in run(site, site, "ansible-playbook", *options, "--check", "check.yml").stdout
    (site / "check.yml").write_text(text.replace("COMMAND", "false"))
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run(site, site, "ansible-playbook", *options, "--check", "check.yml")
    assert "refuses it" in failed.value.stdout
    assert not (site / "checked").exists()
