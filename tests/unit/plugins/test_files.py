# SPDX-License-Identifier: Apache-2.0
"""The plan of a host's files and its writing."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.epic.gateway.plugins.module_utils._files import (
    Entry,
    Link,
    plan,
    read,
    read_link,
    remove,
    replace_file,
    write,
    write_link,
)

FILE = Entry("/etc/epic/agent.yaml", 0o640, 0, 7, "role: gateway\n")
DIRECTORY = Entry("/etc/epic", 0o755)


def own(path: Path, mode: int, content: str | None = None) -> Entry:
    return Entry(str(path), mode, os.geteuid(), os.getegid(), content)


@pytest.mark.parametrize(
    ("found", "content", "attributes"),
    [
        pytest.param(None, True, True, id="missing"),
        pytest.param(replace(FILE, content="role: workload\n"), True, False, id="other text"),
        pytest.param(replace(FILE, mode=0o644), False, True, id="other mode"),
        pytest.param(replace(FILE, gid=0), False, True, id="other group"),
    ],
)
def test_a_difference_is_a_change(found: Entry | None, content: bool, attributes: bool) -> None:
    (change,) = plan([FILE], {found.path: found} if found else {})
    assert (change.content, change.attributes) == (content, attributes)


def test_what_is_as_wanted_is_no_change() -> None:
    assert plan([DIRECTORY, FILE], {FILE.path: FILE, DIRECTORY.path: DIRECTORY}) == []


def test_the_diff_shows_text_and_mode() -> None:
    (change,) = plan([FILE], {FILE.path: replace(FILE, mode=0o600)})
    assert change.diff() == {
        "before_header": "/etc/epic/agent.yaml",
        "after_header": "/etc/epic/agent.yaml",
        "before": "mode 0600, owner 0:7\nrole: gateway\n",
        "after": "mode 0640, owner 0:7\nrole: gateway\n",
    }


def test_writing_leads_to_what_was_wanted(tmp_path: Path) -> None:
    wanted = [own(tmp_path / "d", 0o750), own(tmp_path / "d/f", 0o600, "text\n")]
    for change in plan(wanted, {}):
        write(change)
    assert [read(entry.path) for entry in wanted] == wanted


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old\n")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (change,) = plan([own(tmp_path / "link", 0o644, "new\n")], {})
    write(change)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new\n"


def test_no_reader_sees_a_secret_with_a_wider_mode(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old\n")
    (tmp_path / "f").chmod(0o644)
    with (tmp_path / "f").open() as before:
        (change,) = plan([own(tmp_path / "f", 0o600, "secret\n")], {})
        write(change)
        assert before.read() == "old\n"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600


def test_a_file_is_on_disk_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "f"
    target.write_text("old\n")
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda handle: synced.append((os.fstat(handle).st_size, target.read_text()))
    )
    replace_file(target, "new text\n", 0o644, (os.geteuid(), os.getegid()))
    assert synced == [(len("new text\n"), "old\n")]
    assert target.read_text() == "new text\n"


@pytest.mark.parametrize("step", ["fchown", "fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_no_other(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_text("old\n")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path if step == "replace" else os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "f", "new\n", 0o644, (os.geteuid(), os.getegid()))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"f": "old\n"}


def test_what_a_killed_run_left_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: None)
        replace_file(tmp_path / "f", "half\n", 0o600, (os.geteuid(), os.getegid()))
    assert len(list(tmp_path.iterdir())) == 1
    replace_file(tmp_path / "f", "new\n", 0o644, (os.geteuid(), os.getegid()))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"f": "new\n"}


def test_a_link_is_switched_in_one_step(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        link = Link(str(tmp_path / "current"), version)
        before = read_link(link)
        write_link(link)
        assert read_link(link).found == version
    assert before.diff()["before"] == "link to 1\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "current"]


def test_a_directory_in_a_links_place_stays(tmp_path: Path) -> None:
    (tmp_path / "current/bin").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_link(Link(str(tmp_path / "current"), "1"))
    assert [path.name for path in tmp_path.iterdir()] == ["current"]


def test_removing_takes_files_and_trees_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "f").touch()
    for name in ("d", "f", "absent"):
        remove(str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []
