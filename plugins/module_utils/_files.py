# SPDX-License-Identifier: Apache-2.0
"""Wanted files against the files on disk: a pure plan, and the writing of it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A file (`content` is text), or a directory (`content` is None), with its mode and owner ids."""

    path: str
    mode: int
    uid: int = 0
    gid: int = 0
    content: str | None = None

    @property
    def is_directory(self) -> bool:
        return self.content is None


@dataclass(frozen=True)
class Change:
    """What differs at a path."""

    wanted: Entry
    found: Entry | None
    content: bool
    attributes: bool

    def diff(self) -> dict[str, Any]:
        """The difference as `ansible-playbook --diff` prints it."""
        return {
            "before_header": self.wanted.path,
            "after_header": self.wanted.path,
            "before": _shown(self.found),
            "after": _shown(self.wanted),
        }


def plan(wanted: list[Entry], found: dict[str, Entry]) -> list[Change]:
    """The changes that lead from the found entries to the wanted ones, in the wanted order."""
    changes = [_compare(entry, found.get(entry.path)) for entry in wanted]
    return [change for change in changes if change.content or change.attributes]


def read(path: str) -> Entry | None:
    """What is at the path, or None. A link counts as what it points to."""
    place = Path(path)
    if not place.exists():
        return None
    status = place.stat()
    content = None if place.is_dir() else place.read_text("utf-8", "surrogateescape")
    return Entry(path, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, content)


def write(change: Change) -> None:
    """Carry out a change; a file is replaced whole."""
    entry = change.wanted
    place = Path(entry.path)
    if entry.content is None:
        place.mkdir(parents=True, exist_ok=True)
    elif change.content:
        place = place.resolve()
        handle, part = tempfile.mkstemp(dir=place.parent, prefix=".epic-")
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(entry.content)
        set_attributes(Path(part), entry)
        Path(part).replace(place)
        return
    set_attributes(place, entry)


def remove(path: str) -> None:
    """Remove the file or tree, if it is there."""
    place = Path(path)
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def set_attributes(place: Path, entry: Entry) -> None:
    """Give the path the entry's owner and mode; the owner first, for chown clears bits of the mode."""
    os.chown(place, entry.uid, entry.gid)
    place.chmod(entry.mode)


def _compare(wanted: Entry, found: Entry | None) -> Change:
    if found is None:
        return Change(wanted, None, content=True, attributes=True)
    attributes = (wanted.mode, wanted.uid, wanted.gid) != (found.mode, found.uid, found.gid)
    return Change(wanted, found, content=wanted.content != found.content, attributes=attributes)


def _shown(entry: Entry | None) -> str:
    if entry is None:
        return ""
    return f"mode {entry.mode:04o}, owner {entry.uid}:{entry.gid}\n{entry.content or ''}"
