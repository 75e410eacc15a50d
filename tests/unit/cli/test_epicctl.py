# SPDX-License-Identifier: Apache-2.0
"""epicctl as a user runs it, against the real API: apply, get, delete, status, errors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from epic.cli import main, settings
from epic.cli.printing import output
from epic.errors import Invalid
from epic.model.base import Condition
from epic.model.members import GWMember
from epic.model.resources import GWProxy, GWRoute, Node
from epic.model.values.naming import SOURCES_ANNOTATION
from epic.printable import escape

Epicctl = Callable[..., subprocess.CompletedProcess[str]]


def test_it_is_a_program_that_ends_with_a_status(config: Path) -> None:
    program = [str(Path(sys.executable).parent / "epicctl"), "--config", str(config)]
    listed = subprocess.run([*program, "get", "nodes"], capture_output=True, text=True, check=False)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.split()[0] == "NAME"
    refused = subprocess.run([*program, "get", "things"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("epicctl: ")


def test_the_example_is_applied_twice_shown_and_deleted(
    epicctl: Epicctl, shop: Path, live_api: Any, nodes_at_work: object
) -> None:
    files = ("-f", str(shop / "platform.yaml"), "-f", str(shop / "gateway.yaml"))
    made = epicctl("apply", *files)
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.splitlines() == [
        "account/shop created",
        "serviceprefix/default created",
        "lbservicegroup/shop/http created",
        "user/shop/shop created",
        "gateway/shop/web created",
        "httproute/shop/web created",
    ]
    again = epicctl("apply", *files)
    assert {line.split()[-1] for line in again.stdout.splitlines()} == {"unchanged"}, again

    listed = epicctl("get", "gateways")
    assert listed.stdout.split()[:4] == ["ACCOUNT", "NAME", "GATEWAY", "ADDRESS"]
    assert "203.0.113.1" in listed.stdout
    body = json.loads(epicctl("get", "proxies", "-o", "json").stdout)
    name = body["items"][0]["metadata"]["name"]
    one = yaml.safe_load(epicctl("get", "proxy", name, "-A", "shop", "-o", "yaml").stdout)
    assert one["spec"]["endpoints"][0]["dnsName"] == "web-shop-shop.example.net"

    gone = epicctl("delete", *files)
    assert gone.stdout.splitlines()[:2] == ["httproute/shop/web deleted", "gateway/shop/web deleted"]
    assert "account/shop deleted" in gone.stdout
    assert not live_api.store.list(GWProxy)


def test_what_was_applied_is_deleted_by_kind_and_name(
    epicctl: Epicctl, shop: Path, live_api: Any, nodes_at_work: object
) -> None:
    epicctl("apply", "-f", str(shop / "platform.yaml"), "-f", str(shop / "gateway.yaml"))
    (gateway,) = live_api.store.list(GWProxy)
    (route,) = live_api.store.list(GWRoute)
    hint = epicctl("delete", "gateway", "web")
    assert (hint.returncode, hint.stdout) == (1, "")
    assert f"'web' is the client's name of {gateway.name}" in hint.stderr
    gone = epicctl("delete", "route", route.name)
    assert (gone.returncode, gone.stdout) == (0, f"route/shop/{route.name} deleted\n")
    gone = epicctl("delete", "gw", gateway.name, "-A", "shop")
    assert gone.returncode == 0
    assert gone.stdout.startswith(f"gateway/shop/{gateway.name} ")
    assert live_api.store.list(GWRoute) == []
    left = live_api.store.find(GWProxy, "shop", gateway.name)
    assert left is None or left.deleting


def test_a_gateway_that_is_shared_shows_its_members(
    epicctl: Epicctl, shop: Path, live_api: Any, nodes_at_work: object
) -> None:
    platform, gateway = shop / "platform.yaml", shop / "gateway.yaml"
    documents = list(yaml.safe_load_all(gateway.read_text()))
    (shared,) = (document for document in documents if document["kind"] == "Gateway")
    shared["metadata"]["annotations"] = {"puregw.epic-gateway.org/sharing-key": "shop-web"}
    gateway.write_text(yaml.safe_dump_all(documents))
    made = epicctl("apply", "-f", str(platform), "-f", str(gateway))
    assert (made.returncode, made.stderr) == (0, "")
    again = epicctl("apply", "-f", str(gateway))
    assert {line.split()[-1] for line in again.stdout.splitlines()} == {"unchanged"}, again
    head, row = (line.split() for line in epicctl("get", "members").stdout.splitlines())
    (member,) = live_api.store.list(GWMember)
    cells = dict(zip([" ".join(head[2:4]), *head[4:6]], row[2:5], strict=True))
    ref = member.spec.client_ref
    assert cells == {"CLIENT OBJECT": f"{ref.cluster_id}:shop/web", "GATEWAY": "shop-web", "PORTS": "80"}
    assert ref.cluster_id in epicctl("get", "gateways").stdout
    gone = epicctl("delete", "-f", str(gateway))
    assert "gateway/shop/web deleted" in gone.stdout.splitlines()
    left = live_api.store.find(GWProxy, "shop", "shop-web")
    assert left is None or left.deleting


def test_changes_are_configured_and_new_passwords_noticed(epicctl: Epicctl, shop: Path) -> None:
    epicctl("apply", "-f", str(shop / "platform.yaml"))
    text = (shop / "platform.yaml").read_text()
    (shop / "platform.yaml").write_text(text.replace("proxyLimit: 100", "proxyLimit: 7"))
    (shop / "shop.key").write_text("another-password\n")
    lines = epicctl("apply", "-f", str(shop / "platform.yaml")).stdout.splitlines()
    assert [line for line in lines if line.endswith("configured")] == [
        "account/shop configured",
        "user/shop/shop configured",
    ]


def test_more_passwords_are_changed_than_may_be_tried_at_once(epicctl: Epicctl, tmp_path: Path) -> None:
    account = {"apiVersion": "epic.acnodal.io/v1", "kind": "Account", "metadata": {"name": "many"}}
    users = [
        {
            "apiVersion": "epic.acnodal.io/v1",
            "kind": "User",
            "metadata": {"name": f"u{i}", "namespace": "many"},
            "spec": {"password-file": "key"},
        }
        for i in range(25)
    ]
    (tmp_path / "users.yaml").write_text(yaml.safe_dump_all([account, *users]))
    for password in ("first-password", "other-password"):
        (tmp_path / "key").write_text(password)
        done = epicctl("apply", "-f", str(tmp_path / "users.yaml"))
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("configured") == 25


def test_standard_input_and_options_replace_files_and_classes(epicctl: Epicctl, shop: Path) -> None:
    epicctl("apply", "-f", str(shop / "platform.yaml"))
    objects = list(yaml.safe_load_all((shop / "gateway.yaml").read_text()))
    gateway = yaml.safe_dump_all([o for o in objects if o["kind"] in {"Gateway", "HTTPRoute"}])
    done = epicctl("apply", "-A", "shop", "--template", "http", "-f", "-", stdin=gateway)
    assert done.stdout.splitlines() == ["gateway/shop/web created", "httproute/shop/web created"], done


def test_a_problem_is_told_and_fails_the_command_but_not_the_rest(epicctl: Epicctl, shop: Path) -> None:
    epicctl("apply", "-f", str(shop / "platform.yaml"))
    text = (shop / "gateway.yaml").read_text().replace("- name: web\n  hostnames", "- name: wbe\n  hostnames")
    (shop / "gateway.yaml").write_text(text)
    done = epicctl("apply", "-f", str(shop / "gateway.yaml"))
    assert (done.returncode, done.stdout) == (1, "gateway/shop/web created\n")
    assert "there is no Gateway shop/wbe" in done.stderr


def test_a_parent_for_a_mesh_beside_a_gateway_is_told_and_no_failure(epicctl: Epicctl, shop: Path) -> None:
    objects = list(yaml.safe_load_all((shop / "gateway.yaml").read_text()))
    (route,) = (o for o in objects if o["kind"] == "HTTPRoute")
    route["spec"]["parentRefs"].append({"group": "", "kind": "Service", "name": "web", "port": 80})
    (shop / "gateway.yaml").write_text(yaml.safe_dump_all(objects))
    done = epicctl("apply", "-f", str(shop / "platform.yaml"), "-f", str(shop / "gateway.yaml"))
    assert (done.returncode, "httproute/shop/web created" in done.stdout) == (0, True), done
    assert "parents of kind Service are not served" in done.stderr


def test_the_servers_message_is_shown(epicctl: Epicctl, shop: Path) -> None:
    epicctl("apply", "-f", str(shop / "platform.yaml"))
    text = (shop / "gateway.yaml").read_text().replace("gateway-template: http", "gateway-template: nonsense")
    (shop / "gateway.yaml").write_text(text)
    done = epicctl("apply", "-f", str(shop / "gateway.yaml"))
    assert done.returncode == 1
    assert "nonsense" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_route_that_epic_does_not_take_fails_the_command_each_time(epicctl: Epicctl, shop: Path) -> None:
    """The manifests' Namespace has the label, which EPIC does not know."""
    epicctl("apply", "-f", str(shop / "platform.yaml"))
    objects = list(yaml.safe_load_all((shop / "gateway.yaml").read_text()))
    (gateway,) = (o for o in objects if o["kind"] == "Gateway")
    selector = {"from": "Selector", "selector": {"matchLabels": {"team": "web"}}}
    for listener in gateway["spec"]["listeners"]:
        listener["allowedRoutes"] = {"namespaces": selector}
    labels = {"name": "shop", "labels": {"team": "web"}}
    objects.append({"apiVersion": "v1", "kind": "Namespace", "metadata": labels})
    (shop / "gateway.yaml").write_text(yaml.safe_dump_all(objects))
    for action in ("created", "unchanged"):
        done = epicctl("apply", "-f", str(shop / "gateway.yaml"))
        assert (done.returncode, f"httproute/shop/web {action}" in done.stdout) == (1, True), done
        assert "httproute/shop/web: EPIC does not serve it" in done.stderr
        assert "NotAllowedByListeners" in done.stderr
    gateway["spec"]["listeners"][0]["allowedRoutes"] = {"namespaces": {"from": "All"}}
    (shop / "gateway.yaml").write_text(yaml.safe_dump_all(objects))
    done = epicctl("apply", "-f", str(shop / "gateway.yaml"))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("file", ["gateway.yaml", "platform.yaml"])
def test_an_account_that_contradicts_the_manifests_is_refused_and_nothing_written(
    epicctl: Epicctl, shop: Path, live_api: Any, file: str
) -> None:
    done = epicctl("apply", "-A", "nosuch", "-f", str(shop / file))
    assert (done.returncode, done.stdout) == (1, "")
    assert "is of account 'shop'" in done.stderr
    assert "--account says 'nosuch'" in done.stderr
    assert not live_api.store.list(GWProxy)


def test_an_account_that_the_manifests_name_too_is_right(epicctl: Epicctl, shop: Path) -> None:
    files = ("-f", str(shop / "platform.yaml"), "-f", str(shop / "gateway.yaml"))
    assert epicctl("apply", "-A", "shop", *files).returncode == 0


@pytest.mark.parametrize("command", ["apply", "delete"])
@pytest.mark.parametrize("content", ["", "# nothing\n", "---\n---\n"])
def test_a_file_with_nothing_in_it_is_told(
    epicctl: Epicctl, tmp_path: Path, command: str, content: str
) -> None:
    (tmp_path / "empty.yaml").write_text(content)
    done = epicctl(command, "-f", str(tmp_path / "empty.yaml"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "empty.yaml: there is nothing in it" in done.stderr


def test_objects_that_make_nothing_are_told(epicctl: Epicctl, shop: Path) -> None:
    objects = list(yaml.safe_load_all((shop / "gateway.yaml").read_text()))
    classes = yaml.safe_dump_all([o for o in objects if o["kind"].startswith("GatewayClass")])
    done = epicctl("apply", "-f", "-", stdin=classes)
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing to be written" in done.stderr


def test_files_that_the_configuration_names_are_beside_it(
    config: Path, live_api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca.crt").write_text("")
    (tmp_path / "admin.key").write_text(live_api.password)
    server = {"server": live_api.url, "username": live_api.username}
    config.write_text(yaml.safe_dump({**server, "ca-file": "ca.crt", "password-file": "admin.key"}))
    monkeypatch.chdir("/")
    found = settings.load(config)
    assert (found.ca_file, found.secret().get_secret_value()) == (tmp_path / "ca.crt", live_api.password)
    config.write_text(yaml.safe_dump({**server, "ca-file": "/etc/ca.crt", "password-file": "~/admin.key"}))
    found = settings.load(config)
    assert (found.ca_file, found.password_file) == (Path("/etc/ca.crt"), Path.home() / "admin.key")


def test_help_and_examples_name_a_kind_alike(epicctl: Epicctl) -> None:
    shown = epicctl("get", "--help").stdout
    assert "gateways" in shown
    assert "proxies" not in shown
    assert epicctl("get", "proxies").stdout == epicctl("get", "gateways").stdout


HOSTILE = "a\x1b[2J\x07\x00\x9b\u202eb\x7f"


@pytest.mark.parametrize("form", [output.Format.JSON, output.Format.YAML])
def test_documents_mean_the_same_whatever_they_hold(
    form: output.Format, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in (HOSTILE, "Zürich 東京", "\U000e0041 tag", "a\nb\tc"):
        output.print_document({"message": text}, form)
        shown = capsys.readouterr().out
        read = json.loads if form is output.Format.JSON else yaml.safe_load
        assert read(shown) == {"message": text}
        assert all(c.isprintable() or c == "\n" for c in shown)


def test_tables_and_messages_hold_no_control_characters(
    epicctl: Epicctl, shop: Path, live_api: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    epicctl("apply", "-f", str(shop / "platform.yaml"), "-f", str(shop / "gateway.yaml"))
    with live_api.store.transaction() as transaction:
        (proxy,) = transaction.list(GWProxy)
        condition = Condition(type="Accepted", status="False", reason="X", message=HOSTILE)
        spec = proxy.spec.model_copy(update={"display_name": HOSTILE})
        status = proxy.status.model_copy(update={"conditions": (condition,)})
        transaction.update(proxy.model_copy(update={"spec": spec, "status": status}))
    for command in (("get", "gateways"), ("status",)):
        done = epicctl(*command)
        assert r"a\u001b[2J" in done.stdout, done
        assert all(c.isprintable() or c == "\n" for c in done.stdout)
    output.warn(Invalid(HOSTILE))
    assert capsys.readouterr().err == "epicctl: " + escape(HOSTILE) + "\n"


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ("kind: [", "is not YAML: line"),
        ("[]", "each document must be an object"),
        ("apiVersion: epic.acnodal.io/v1\nkind: Acount\nmetadata: {name: x}", "use Account, ServicePrefix"),
        (
            "apiVersion: epic.acnodal.io/v1\nkind: Account\nmetadata: {name: x}\nspec: {proxyLimit: -1}",
            "proxyLimit",
        ),
        ("apiVersion: epic.acnodal.io/v1\nkind: LBServiceGroup\nmetadata: {name: x}", "metadata.namespace"),
        (
            "apiVersion: epic.acnodal.io/v1\nkind: User\nmetadata: {name: x, namespace: y}\nspec: {password: z}",  # noqa: E501
            "password-file",
        ),
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}", "known are"),
    ],
)
def test_a_wrong_manifest_says_what_would_be_right(epicctl: Epicctl, manifest: str, words: str) -> None:
    done = epicctl("apply", "-f", "-", stdin=manifest)
    assert done.returncode == 1
    assert words in done.stderr
    assert "standard input" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_wrong_document_keeps_no_other_from_being_applied(epicctl: Epicctl, tmp_path: Path) -> None:
    head = "apiVersion: epic.acnodal.io/v1\nkind: Account\n"
    wrong = {
        "no-yaml": "kind: [",
        "own": f"{head}metadata: {{}}",
        "unread": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}",
        "field": "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: x}\nspec: {}",
    }
    texts = [f"{head}metadata: {{name: first}}", *wrong.values(), f"{head}metadata: {{name: last}}"]
    (tmp_path / "all.yaml").write_text("\n---\n".join(texts) + "\n")
    done = epicctl("apply", "-f", str(tmp_path / "all.yaml"), "-f", str(tmp_path / "none.yaml"))
    assert (done.returncode, done.stdout) == (1, "account/first created\naccount/last created\n")
    for number, text in enumerate(("is not YAML", "metadata.name", "Deployment", "gatewayClassName"), 2):
        (line,) = (line for line in done.stderr.splitlines() if text in line)
        assert f"document {number}" in line or number == 3
    assert "none.yaml: cannot be read" in done.stderr


def routes_alone(shop: Path) -> tuple[str, str]:
    """The example without its routes, and its routes alone."""
    objects = list(yaml.safe_load_all((shop / "gateway.yaml").read_text()))
    routes = [o for o in objects if o["kind"] in {"HTTPRoute", "Service"}]
    (shop / "gateway.yaml").write_text(yaml.safe_dump_all([o for o in objects if o["kind"] != "HTTPRoute"]))
    (shop / "route.yaml").write_text(yaml.safe_dump_all(routes))
    return str(shop / "gateway.yaml"), str(shop / "route.yaml")


@pytest.mark.parametrize("options", [(), ("-A", "shop")])
def test_a_route_can_be_applied_and_deleted_without_its_gateway(
    epicctl: Epicctl, shop: Path, live_api: Any, options: tuple[str, ...]
) -> None:
    gateway, route = routes_alone(shop)
    alone = epicctl("apply", "-f", str(shop / "platform.yaml"), "-f", route)
    assert alone.returncode == 1
    assert "there is no Gateway shop/web" in alone.stderr
    assert epicctl("apply", "-f", gateway).returncode == 0
    done = epicctl("apply", *options, "-f", route)
    assert (done.returncode, done.stdout, done.stderr) == (0, "httproute/shop/web created\n", "")
    (made,) = live_api.store.list(GWRoute)
    (proxy,) = live_api.store.list(GWProxy)
    assert made.spec.http.parent_refs[0].name == proxy.name
    assert made.spec.client_ref.cluster_id == "lab"
    assert epicctl("apply", *options, "-f", route).stdout == "httproute/shop/web unchanged\n"
    done = epicctl("delete", *options, "-f", route)
    assert (done.returncode, done.stdout) == (0, "httproute/shop/web deleted\n")
    assert not live_api.store.get(GWProxy, "shop", proxy.name).deleting


def test_a_gateway_stays_while_routes_that_are_not_deleted_lead_to_it(
    epicctl: Epicctl, shop: Path, live_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, route = routes_alone(shop)
    epicctl("apply", "-f", str(shop / "platform.yaml"), "-f", gateway, "-f", route)
    (proxy,) = live_api.store.list(GWProxy)
    kept = epicctl("delete", "-f", gateway)
    assert (kept.returncode, kept.stdout) == (1, "")
    assert "routes that are not in the manifests lead to it: shop/web; delete them first" in kept.stderr
    assert not live_api.store.get(GWProxy, "shop", proxy.name).deleting
    monkeypatch.setattr(main, "_confirm", lambda question: "shop/web" in question)
    assert epicctl("delete", "-f", gateway).stdout == "gateway/shop/web deleted\n"


def test_what_hosts_ask_for_is_not_deleted_by_manifests(epicctl: Epicctl, shop: Path, live_api: Any) -> None:
    files = ("-f", str(shop / "gateway.yaml"))
    epicctl("apply", "-f", str(shop / "platform.yaml"), *files)
    with live_api.store.transaction() as transaction:
        (route,) = transaction.list(GWRoute)
        metadata = route.metadata.model_copy(update={"annotations": {SOURCES_ANNOTATION: "lab/n1,lab/n2"}})
        transaction.update(route.model_copy(update={"metadata": metadata}))
    done = epicctl("delete", *files)
    assert (done.returncode, done.stdout) == (1, "gateway/shop/web deleted\n")
    assert (
        f"it is left: lab/n1, lab/n2 ask for it; remove it there, or: epicctl delete route {route.name}"
        in (done.stderr)
    )
    assert live_api.store.list(GWRoute)


def test_fields_of_routes_that_are_not_known_are_warned_about(epicctl: Epicctl, shop: Path) -> None:
    file = shop / "gateway.yaml"
    file.write_text(file.read_text().replace("  hostnames:", "  useDefaultGateways: All\n  hostnames:"))
    done = epicctl("apply", "-f", str(shop / "platform.yaml"), "-f", str(file))
    assert done.returncode == 0
    (warning,) = done.stderr.splitlines()
    assert warning.endswith("HTTPRoute shop/web: spec.useDefaultGateways is not known and ignored")


def test_a_misspelt_field_is_warned_about(epicctl: Epicctl) -> None:
    manifest = "apiVersion: epic.acnodal.io/v1\nkind: Account\nmetadata: {name: x}\nspec: {proxylimit: 3}"
    done = epicctl("apply", "-f", "-", stdin=manifest)
    assert (done.returncode, done.stdout) == (0, "account/x created\n")
    assert "spec.proxylimit is not known" in done.stderr


def test_what_a_manifest_has_besides_its_spec_is_warned_about(epicctl: Epicctl, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("some-password")
    (tmp_path / "all.yaml").write_text(
        "apiVersion: epic.acnodal.io/v1\n"
        "kind: Account\n"
        "metadata: {name: x, labels: {team: shop, epic.acnodal.io/a: b}}\n"
        "Spec: {proxyLimit: 3}\n"
        "---\n"
        "apiVersion: epic.acnodal.io/v1\n"
        "kind: User\n"
        "metadata: {name: u, namespace: x}\n"
        "spec: {password-file: key, admin: true}\n"
    )
    done = epicctl("apply", "-f", str(tmp_path / "all.yaml"))
    assert (done.returncode, done.stdout) == (0, "account/x created\nuser/x/u created\n")
    warnings = [
        line.partition("account/x: ")[2] or line.partition("user/x/u: ")[2]
        for line in done.stderr.splitlines()
    ]
    assert warnings == [
        "Spec is not known and ignored",
        "metadata.labels.team is not known and ignored",
        "spec.admin is not known and ignored; known are cluster-ids, password-file",
    ]


def test_nodes_are_cordoned_drained_given_back_and_removed(epicctl: Epicctl, live_api: Any) -> None:
    def spec() -> tuple[bool, bool]:
        found = live_api.store.get(Node, "", "epic1").spec
        return found.schedulable, found.drain

    for command, expected in (
        ("cordon", (False, False)),
        ("drain", (False, True)),
        ("uncordon", (True, False)),
    ):
        options = [] if command == "cordon" else ["--no-wait"]
        done = epicctl("node", command, "epic1", *options)
        assert (done.returncode, done.stderr) == (0, "")
        assert spec() == expected
    assert epicctl("node", "drain", "epic1", "--timeout", "0").returncode == 3
    removed = epicctl("node", "remove", "epic1", "--no-wait")
    assert removed.stdout == "node epic1 is being removed\n"
    assert live_api.store.get(Node, "", "epic1").deleting
    refused = epicctl("node", "uncordon", "epic1")
    assert refused.returncode == 1
    assert "is being removed" in refused.stderr
    assert epicctl("node", "remove", "epic2", "--force", "--no-wait").returncode == 0
    assert live_api.store.get(Node, "", "epic2").status.lost


def test_a_node_that_is_applied_again_stays_cordoned(epicctl: Epicctl) -> None:
    manifest = (
        "apiVersion: epic.acnodal.io/v1\nkind: Node\nmetadata: {name: epic1}\nspec: {address: 192.0.2.1}"
    )
    epicctl("node", "cordon", "epic1")
    assert epicctl("apply", "-f", "-", stdin=manifest).stdout == "node/epic1 unchanged\n"


def test_status_fails_while_nodes_are_silent(epicctl: Epicctl) -> None:
    done = epicctl("status")
    assert done.returncode == 1
    assert "epic1: its agent has never reported" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["get", "things"], 1, "use accounts, users"),
        (["get", "nodes", "epic9"], 1, "there is no node 'epic9'"),
        (["get"], 2, "Missing argument"),
        (["apply"], 2, "Missing option"),
        (["apply", "-f", "/nonexistent.yaml"], 1, "/nonexistent.yaml"),
        (["apply", "-f", "-", "--template", "http"], 1, "--template needs --account"),
        (["runs", "watch", "1"], 1, "'1'"),
    ],
)
def test_wrong_use_ends_with_a_message(
    epicctl: Epicctl, arguments: list[str], status: int, words: str
) -> None:
    done = epicctl(*arguments)
    assert done.returncode == status, done
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_configuration_is_shown_by_example(tmp_path: Path, epicctl: Epicctl) -> None:
    done = epicctl("--config", str(tmp_path / "none.yaml"), "get", "nodes")
    assert done.returncode == 1
    assert "server: https://epic1:8443" in done.stderr
