# SPDX-License-Identifier: Apache-2.0
"""Backups: every object as of one revision, in a file that fits every engine."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from epic.errors import Damaged
from epic.store.engine import Engine, Entry, Span
from epic.store.objects import LEASE_KIND

_FORMAT = "epic-backup"
_VERSION = 1
_PAGE = 500
_EVERYTHING = Span("A", "[")
# Further than a store gets between its last backup and its end, so that no revision is ever given twice.
REVISIONS_SKIPPED = 1_000_000_000


@dataclass(frozen=True)
class BackupSummary:
    """What a backup holds."""

    revision: int
    created: str
    objects: int


async def write_backup(engine: Engine, path: Path) -> BackupSummary:
    """Write all objects into a new file that only its owner may read; the store is used all the while.

    An object that cannot be read by this version of EPIC is in it as it is. Leases are not.
    """
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    revision = await engine.revision()
    created = datetime.now(UTC).isoformat(timespec="seconds")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with gzip.open(file, "wb", compresslevel=3) as packed:
                count = await _write(packed, _entries(engine, revision), revision, created)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return BackupSummary(revision, created, count)


def check_backup(path: Path) -> BackupSummary:
    """Read the whole file; raises Damaged unless it is a backup, all of it."""
    lines = _lines(path)
    match next(lines):
        case {"revision": int(revision), "created": str(created)}:
            return BackupSummary(revision, created, sum(1 for _ in lines))
    raise Damaged(f"{path}: no backup of EPIC's")


def read_backup(path: Path) -> Iterator[tuple[str, bytes]]:
    """The paths and values in a backup that was checked."""
    lines = _lines(path)
    next(lines)
    for line in lines:
        yield line["path"], base64.b64decode(line["value"])


async def _entries(engine: Engine, revision: int) -> AsyncIterator[Entry]:
    span = _EVERYTHING
    more = True
    while more:
        scan = await engine.scan(span, _PAGE, revision)
        for entry in scan.entries:
            if not entry.path.startswith(f"{LEASE_KIND}/"):
                yield entry
        more = scan.more
        if scan.entries:
            span = Span(scan.entries[-1].path + "\0", span.end)


async def _write(
    file: IO[bytes] | gzip.GzipFile, entries: AsyncIterator[Entry], revision: int, created: str
) -> int:
    """One JSON object a line: the header, the entries, and a last one that shows that none is missing."""
    digest = hashlib.sha256()

    def write(content: dict[str, object]) -> None:
        line = json.dumps(content).encode() + b"\n"
        digest.update(line)
        file.write(line)

    write({"format": _FORMAT, "version": _VERSION, "revision": revision, "created": created})
    count = 0
    async for entry in entries:
        write({"path": entry.path, "value": base64.b64encode(entry.value).decode()})
        count += 1
    write({"objects": count, "sha256": digest.hexdigest()})
    return count


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The header and the entries; the last line is compared with them."""
    digest = hashlib.sha256()
    count = -1
    try:
        with gzip.open(path, "rb") as file:
            for line in file:
                content = json.loads(line)
                if "sha256" in content:
                    if content != {"objects": count, "sha256": digest.hexdigest()} or file.read(1):
                        raise Damaged(f"{path}: the backup is damaged: its checksum does not fit")
                    return
                if count < 0 and (content.get("format"), content.get("version")) != (_FORMAT, _VERSION):
                    raise Damaged(f"{path}: no backup that this version of EPIC reads")
                digest.update(line)
                count += 1
                yield content
    except (OSError, EOFError, zlib.error, ValueError, AttributeError) as error:
        raise Damaged(f"{path}: no backup, or a damaged one: {error}") from error
    raise Damaged(f"{path}: the backup is cut off")
