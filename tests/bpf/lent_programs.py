# SPDX-License-Identifier: Apache-2.0
"""The tunnel's programs, verified once and lent to dataplane after dataplane, each time with empty maps.

The kernel takes most of a second to verify them, and hundreds of tests want a dataplane of their own. What a
borrower has pinned are the programs and maps that loading made: only the verifying is not done again.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from epic.bpf.programs import syscalls
from epic.bpf.programs.loader import Loader, version_of
from epic.bpf.programs.syscalls import MapShape
from epic.bpf.tables.events import EventRing

_HASH, _ARRAY, _PER_CPU_HASH, _PER_CPU_ARRAY, _RING = 1, 2, 5, 6, 27
_UPDATE_BATCH = 26
_OF_FLOWS = {"owners", "refused"}
"""Only second chance writes them. They are large: to clear them takes three times as long as all others."""
LOAD = Loader._bpftool
"""What lending stands in for."""


class _Loan(NamedTuple):
    """To whom a set is lent."""

    root: Path
    inode: int

    @property
    def ended(self) -> bool:
        """Whether that directory is gone; another one may have its name."""
        return not self.root.exists() or self.root.stat().st_ino != self.inode


class LentPrograms:
    """Sets of programs and maps, each pinned for one borrower at a time."""

    def __init__(self, store: Path, load: Callable[[Path], None]) -> None:
        """Keep them in `store`, to be made on a bpf file system; `load` pins a new set in a directory."""
        store.mkdir(mode=0o700)
        self._store, self._load = store, load
        self._loans: dict[Path, _Loan] = {}

    def lend(self, root: Path, pins: Path) -> None:
        """Pin a set with empty maps in `pins`; it is given back when the directory `root` is removed."""
        lent = next((each for each, loan in self._loans.items() if loan.ended), None)
        if lent is None:
            lent = self._store / str(len(self._loans))
            self._load(lent)
        else:
            clear(lent / "maps")
        self._loans[lent] = _Loan(root, root.stat().st_ino)
        for pin in lent.glob("*/*"):
            _pin_again(pin, pins / pin.relative_to(lent))


@contextmanager
def programs_lent(store: Path, object_file: Path) -> Iterator[None]:
    """Dataplanes that load this object where no other version is get a set that is lent to them."""
    version = version_of(object_file)

    def load_set(directory: Path) -> None:
        loader = Loader(directory, object_file)
        directory.mkdir(mode=0o700)
        LOAD(loader, ())
        for kind in ("programs", "maps"):
            (loader._unfinished / kind).rename(directory / kind)
        loader._unfinished.rmdir()

    lent = LentPrograms(store, load_set)

    def lend(self: Loader, held: Iterable[Path]) -> None:
        kept = list(held)
        if kept or self.directory.name != version:
            LOAD(self, kept)
        else:
            lent.lend(self._root, self._unfinished)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "_bpftool", lend)
        yield


def clear(maps: Path) -> None:
    """Make all pinned maps as they are after loading."""
    # Once there was a gateway with siblings, there is a budget of the node.
    flows = any(_keys(maps / "budgets"))
    for pin in maps.iterdir():
        if flows or pin.name not in _OF_FLOWS:
            clear_map(pin)


def clear_map(pin: Path) -> None:
    """Make one map so."""
    fd = syscalls.open_pinned(pin)
    try:
        shape = syscalls.map_shape(fd)
        if shape.kind == _RING:
            with closing(EventRing(pin)) as ring:
                ring.read()
        elif shape.kind in (_HASH, _PER_CPU_HASH):
            syscalls.delete_batch(fd, _keys_of(fd, shape))
        else:
            assert shape.kind in (_ARRAY, _PER_CPU_ARRAY), f"{pin.name} is of a kind that is not known here"
            _write_zeros(fd, shape.max_entries, value_size(shape))
    finally:
        os.close(fd)


def _keys(pin: Path) -> list[bytes]:
    fd = syscalls.open_pinned(pin)
    try:
        return _keys_of(fd, syscalls.map_shape(fd))
    finally:
        os.close(fd)


def _keys_of(fd: int, shape: MapShape) -> list[bytes]:
    return [key for key, _ in syscalls.items(fd, shape.key_size, value_size(shape))]


def value_size(shape: MapShape) -> int:
    """Of an entry; of per-CPU maps of all processors together."""
    if shape.kind in (_PER_CPU_HASH, _PER_CPU_ARRAY):
        return (shape.value_size + 7) // 8 * 8 * syscalls.possible_cpus()
    return shape.value_size


def _write_zeros(fd: int, entries: int, size: int) -> None:
    keys, values = _zeros(entries, size)
    pointers = (0, 0, syscalls.address(keys), syscalls.address(values))
    try:
        syscalls.bpf(_UPDATE_BATCH, syscalls.attributes("=QQQQIIQQ", *pointers, entries, fd, 0, 0))
    except OSError as error:
        if error.errno != syscalls.ENOTSUPP:
            raise
        # Old kernels write values of all CPUs only one by one.
        for index in range(entries):
            syscalls.update(fd, struct.pack("=I", index), bytes(size))


@cache
def _zeros(entries: int, size: int) -> tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]:
    """All keys of an array, and a value for each."""
    keys = ctypes.create_string_buffer(struct.pack(f"={entries}I", *range(entries)), 4 * entries)
    return keys, ctypes.create_string_buffer(entries * size)


def _pin_again(pin: Path, other: Path) -> None:
    other.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = syscalls.open_pinned(pin)
    try:
        syscalls.pin(fd, other)
    finally:
        os.close(fd)
