# SPDX-License-Identifier: Apache-2.0
"""The installer of EPIC's programs: each version in a directory of its own, the one that runs untouched."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "roles/base/files/install-python"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

UV = """#!/bin/sh
# makes what uv would, or fails in the middle as with a full disk, or waits there
for last; do :; done
echo "$1" >>"${0%/*}/calls"
echo "$(nice) $UV_CONCURRENT_INSTALLS" >>"${0%/*}/share"
case $1 in
venv) mkdir -p "$last/bin"; echo new >"$last/bin/epic-agent" ;;
pip) [ ! -e "${0%/*}/full" ] || { echo "No space left on device" >&2; exit 1; }
  [ ! -p "${0%/*}/wait" ] || read -r _ <"${0%/*}/wait" ;;
esac
"""


class Host:
    """A host's /opt/epic, and the bundle's parts on it."""

    def __init__(self, root: Path) -> None:
        self.opt = root / "opt"
        self.wheels = root / "bundle/wheels1"
        self.part = root / "bundle/python1"
        for place in (self.opt, self.wheels, self.part):
            place.mkdir(parents=True)
        (self.wheels / "uv").write_text(UV)
        (self.wheels / "uv").chmod(0o755)
        (self.wheels / "locked.txt").touch()
        (self.part / "own.txt").touch()
        self.facts(PYTHON)
        shutil.copy(SCRIPT, self.part / "install")

    def facts(self, python: str) -> None:
        text = f"PYTHON={python}\nMACHINE={platform.machine()}\nDIGEST=python1\nWHEELS=wheels1\n"
        (self.part / "facts").write_text(text)

    def has(self, *versions: str) -> None:
        """Versions that are there already, oldest first; the last one runs."""
        for age, version in enumerate(versions):
            (self.opt / version).mkdir()
            (self.opt / version / ".complete").touch()
            os.utime(self.opt / version, (age, age))
        (self.opt / "current").symlink_to(versions[-1])

    def install(self, version: str, keep: int = 1) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._command(version, keep), capture_output=True, text=True, check=False)

    def begin_install(self, version: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command(version, 1))

    def _command(self, version: str, keep: int) -> list[str]:
        return [str(self.part / "install"), sys.executable, str(self.opt / version), str(keep)]

    @property
    def calls(self) -> list[str]:
        """What uv was asked for so far."""
        path = self.wheels / "calls"
        return path.read_text().split() if path.exists() else []

    @property
    def versions(self) -> list[str]:
        return sorted(path.name for path in self.opt.iterdir() if path.name[0].isdigit())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_new_version_comes_beside_the_one_that_runs(host: Host) -> None:
    host.has("0.1.0-a")
    assert host.install("0.2.0-b").returncode == 0
    assert host.versions == ["0.1.0-a", "0.2.0-b"]
    assert (host.opt / "0.2.0-b/.complete").exists()
    assert (host.opt / "current").readlink() == Path("0.1.0-a"), "switching is another step"


def test_what_serves_on_the_host_goes_first(host: Host) -> None:
    assert host.install("0.2.0-b").returncode == 0
    quarter = -(-len(os.sched_getaffinity(0)) // 4)
    assert set((host.wheels / "share").read_text().splitlines()) == {f"19 {quarter}"}


def test_a_failure_in_the_middle_leaves_what_runs(host: Host) -> None:
    host.has("0.1.0-a")
    (host.wheels / "full").touch()
    failed = host.install("0.2.0-b")
    assert failed.returncode != 0
    assert "No space left on device" in failed.stderr
    assert (host.opt / "current/.complete").exists()
    assert not (host.opt / "0.2.0-b/.complete").exists(), "it does not count as installed"


def test_what_was_cut_short_is_made_anew(host: Host) -> None:
    (host.opt / "0.2.0-b/bin").mkdir(parents=True)
    (host.opt / "0.2.0-b/half").touch()
    assert host.install("0.2.0-b").returncode == 0
    assert sorted(path.name for path in (host.opt / "0.2.0-b").iterdir()) == [".complete", "bin"]


def test_of_two_at_once_the_second_waits_and_finds_the_work_done(host: Host) -> None:
    os.mkfifo(host.wheels / "wait")
    first = host.begin_install("0.2.0-b")
    wait_until(lambda: host.calls == ["venv", "pip"])
    second = host.begin_install("0.2.0-b")
    lock = (host.opt / ".install").stat().st_ino
    wait_until(lambda: is_waited_for(lock) or len(host.calls) > 2)
    assert host.calls == ["venv", "pip"], "nothing is removed under the first one"
    (host.wheels / "wait").write_text("go on\n")
    assert (first.wait(60), second.wait(60)) == (0, 0)
    assert host.calls == ["venv", "pip"]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_waited_for(inode: int) -> bool:
    """Whether a process waits for a lock of the file, as proc_locks(5) shows it."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and f":{inode} " in line for line in lines)


@pytest.mark.parametrize(
    ("keep", "left"),
    [(1, ["0.3.0-c", "0.4.0-d"]), (2, ["0.2.0-b", "0.3.0-c", "0.4.0-d"])],
)
def test_old_versions_go_and_the_one_that_runs_stays(host: Host, keep: int, left: list[str]) -> None:
    host.has("0.1.0-a", "0.2.0-b", "0.3.0-c")
    (host.opt / "collections").mkdir()
    assert host.install("0.4.0-d", keep).returncode == 0
    assert host.versions == left
    assert (host.opt / "collections").exists()


def test_after_a_way_back_the_old_version_that_runs_stays(host: Host) -> None:
    host.has("0.2.0-b", "0.1.0-a")
    os.utime(host.opt / "0.1.0-a", (0, 0))
    assert host.install("0.3.0-c").returncode == 0
    assert host.versions == ["0.1.0-a", "0.3.0-c"]


def test_another_python_is_refused_before_anything_happens(host: Host) -> None:
    host.facts("2.7")
    failed = host.install("0.2.0-b")
    assert "this bundle is for Python 2.7" in failed.stderr
    assert host.versions == []
