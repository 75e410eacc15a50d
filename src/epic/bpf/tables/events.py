# SPDX-License-Identifier: Apache-2.0
"""The ring buffer that the programs tell events through."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from epic.bpf.programs import syscalls
from epic.bpf.tables import records
from epic.bpf.tables.records import TunnelEvent

_POSITION = struct.Struct("=Q")
_HEADER = struct.Struct("=II")
_BUSY, _DISCARD = 1 << 31, 1 << 30
_BYTES = 65536
"""EVENTS_BYTES in bpf/consts.h."""


class EventRing:
    """Takes events out, each once; there must be one reader only. Readable when there are some."""

    def __init__(self, path: Path) -> None:
        self._fd = syscalls.open_pinned(path)
        page = mmap.PAGESIZE
        # The kernel shows its own position and, twice in a row, the ring; ours is on a page before them.
        self._taken = mmap.mmap(self._fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._given = mmap.mmap(self._fd, page + 2 * _BYTES, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)

    def fileno(self) -> int:
        """For select and its like."""
        return self._fd

    def close(self) -> None:
        """Give everything back; events stay for the next reader."""
        self._taken.close()
        self._given.close()
        os.close(self._fd)

    def read(self) -> list[TunnelEvent]:
        """All events that are there."""
        return [records.unpack_event(data) for data in self._records()]

    def _records(self) -> Iterator[bytes]:
        (position,) = _POSITION.unpack_from(self._taken)
        while position < _POSITION.unpack_from(self._given)[0]:
            place = mmap.PAGESIZE + position % _BYTES
            length, _ = _HEADER.unpack_from(self._given, place)
            if length & _BUSY:
                return
            size = length & ~_DISCARD
            start = place + _HEADER.size
            data = self._given[start : start + size]
            position += _HEADER.size + (size + 7) // 8 * 8
            _POSITION.pack_into(self._taken, 0, position)
            if not length & _DISCARD:
                yield data
