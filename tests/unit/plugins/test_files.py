"""The plan of a host's files and its writing."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.epic.gateway.plugins.module_utils._files import Entry, plan, read, remove, write

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


def test_removing_takes_files_and_trees_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "f").touch()
    for name in ("d", "f", "absent"):
        remove(str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []
