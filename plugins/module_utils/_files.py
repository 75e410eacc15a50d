# SPDX-License-Identifier: Apache-2.0
"""Wanted files against the files on disk: a pure plan, and the writing of it."""

from __future__ import annotations

import os
import shutil
import stat
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
class Link:
    """A symbolic link. `found` is where it leads now, None if there is none."""

    path: str
    target: str
    found: str | None = None

    def diff(self) -> dict[str, Any]:
        """The difference as `ansible-playbook --diff` prints it."""
        before = "" if self.found is None else f"link to {self.found}\n"
        return {
            "before_header": self.path,
            "after_header": self.path,
            "before": before,
            "after": f"link to {self.target}\n",
        }


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
        replace_file(place.resolve(), entry.content, entry.mode, (entry.uid, entry.gid))
        return
    # the owner first, for chown clears bits of the mode
    os.chown(place, entry.uid, entry.gid)
    place.chmod(entry.mode)


def replace_file(place: Path, content: str, mode: int, owner: tuple[int, int]) -> None:
    """Put a file with this content in place of the one there, if any; `owner` is uid and gid.

    There is the old file or the new one whenever one looks, also after a power cut and a failure.
    """
    part = _part(place)
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(content)
            os.fchown(handle, *owner)
            os.fchmod(handle, mode)
            stream.flush()
            os.fsync(handle)
        part.replace(place)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read_link(link: Link) -> Link:
    """The link with where it leads now."""
    place = Path(link.path)
    found = str(place.readlink()) if place.is_symlink() else ("(no link)" if place.exists() else None)
    return Link(link.path, link.target, found)


def write_link(link: Link) -> None:
    """Have the link in place of what is there, at no moment nothing. A directory there is an OSError."""
    place = Path(link.path)
    part = _part(place)
    part.unlink(missing_ok=True)
    part.symlink_to(link.target)
    try:
        part.replace(place)
    except OSError:
        part.unlink()
        raise


def _part(place: Path) -> Path:
    # always the same name: what a killed run left is taken up by the next
    return place.with_name(f".{place.name}.epic-part")


def remove(path: str) -> None:
    """Remove the file or tree, if it is there."""
    place = Path(path)
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _compare(wanted: Entry, found: Entry | None) -> Change:
    if found is None:
        return Change(wanted, None, content=True, attributes=True)
    attributes = (wanted.mode, wanted.uid, wanted.gid) != (found.mode, found.uid, found.gid)
    return Change(wanted, found, content=wanted.content != found.content, attributes=attributes)


def _shown(entry: Entry | None) -> str:
    if entry is None:
        return ""
    return f"mode {entry.mode:04o}, owner {entry.uid}:{entry.gid}\n{entry.content or ''}"
