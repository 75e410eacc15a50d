# SPDX-License-Identifier: Apache-2.0
"""bpf(2): the few commands that pinned maps, programs and links need, by ctypes."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_NUMBER = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}

_MAP_LOOKUP_ELEM = 1
_MAP_UPDATE_ELEM = 2
_MAP_DELETE_ELEM = 3
_OBJ_PIN = 6
_OBJ_GET = 7
_OBJ_GET_INFO_BY_FD = 15
_PROG_GET_FD_BY_ID = 13
_MAP_LOOKUP_BATCH = 24
_MAP_UPDATE_BATCH = 26
_MAP_DELETE_BATCH = 27
_LINK_CREATE = 28
_LINK_UPDATE = 29
# BPF_F_BEFORE, before no one in particular
_BEFORE_ALL = 1 << 3
_TCX_EGRESS = 47

ENOTSUPP = 524
"""The kernel's own; libc has no name for it."""

UPDATE_ANY = 0
UPDATE_NEW = 1

_BPFFS_MAGIC = 0xCAFE4A11
_PROGRAM_INFO_SIZE = 232
_MAP_INFO_SIZE = 80
_LINK_INFO_SIZE = 64
_PROGRAM_NAME_OFFSET = 64
_BATCH, _LEAST_BATCH, _BATCH_BYTES = 4096, 64, 1 << 19

_libc = ctypes.CDLL(None, use_errno=True)


class ProgramInfo(NamedTuple):
    """Which program a descriptor holds."""

    id: int
    tag: bytes
    name: str
    """Its first 15 characters."""


class TcxLink(NamedTuple):
    """A program's attachment."""

    program: int
    """Its id."""
    interface: int
    """Its index; 0: it is gone."""


class MapShape(NamedTuple):
    """What makes two maps the same for programs that use them."""

    kind: int
    key_size: int
    value_size: int
    """Of per-CPU maps for one CPU."""
    max_entries: int
    flags: int


def bpf(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    """The system call; raises OSError."""
    result = int(_libc.syscall(_NUMBER[platform.machine()], command, attributes, len(attributes)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def attributes(layout: str, *values: int) -> ctypes.Array[ctypes.c_char]:
    """A `union bpf_attr` with these fields at its start."""
    return ctypes.create_string_buffer(struct.pack(layout, *values), 128)


def address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    """Where the buffer lies, as the kernel wants pointers."""
    return ctypes.addressof(buffer)


def open_pinned(path: Path) -> int:
    """A descriptor of the map, program or link pinned there."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    try:
        return bpf(_OBJ_GET, attributes("=QII", address(name), 0, 0))
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from None


def pin(fd: int, path: Path) -> None:
    """Pin what the descriptor holds."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    bpf(_OBJ_PIN, attributes("=QII", address(name), fd, 0))


def create_tcx_egress_link(program: int, interface: int) -> int:
    """Run the program at the interface's egress, before other links', for as long as this link is held."""
    return bpf(_LINK_CREATE, attributes("=IIII", program, interface, _TCX_EGRESS, _BEFORE_ALL))


def update_link(link: int, program: int) -> None:
    """Run this program instead of the one that the link runs."""
    bpf(_LINK_UPDATE, attributes("=IIII", link, program, 0, 0))


def tcx_link(link: int) -> TcxLink:
    """What a TCX link is."""
    info = ctypes.create_string_buffer(_LINK_INFO_SIZE)
    bpf(_OBJ_GET_INFO_BY_FD, attributes("=IIQ", link, len(info), address(info)))
    return TcxLink(*struct.unpack_from("=8xI4xI", info))


def lookup(fd: int, key: bytes, size: int) -> bytes | None:
    """The value of a key; None when there is none."""
    held, value = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(size)
    try:
        bpf(_MAP_LOOKUP_ELEM, attributes("=IIQQQ", fd, 0, address(held), address(value), 0))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return value.raw


def update(fd: int, key: bytes, value: bytes, flags: int = UPDATE_ANY) -> bool:
    """Store; False when `flags` is UPDATE_NEW and the key is there already."""
    held, new = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
    try:
        bpf(_MAP_UPDATE_ELEM, attributes("=IIQQQ", fd, 0, address(held), address(new), flags))
    except OSError as error:
        if flags == UPDATE_NEW and error.errno == errno.EEXIST:
            return False
        raise
    return True


def delete(fd: int, key: bytes) -> bool:
    """Remove; False when the key was not there."""
    held = ctypes.create_string_buffer(key, len(key))
    try:
        bpf(_MAP_DELETE_ELEM, attributes("=IIQ", fd, 0, address(held)))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def items(fd: int, key_size: int, value_size: int) -> Iterator[tuple[bytes, bytes]]:
    """All of a hash map. Entries that come or go meanwhile may be seen or not."""
    position, first, last = ctypes.create_string_buffer(8), True, False
    # Values of all CPUs can be large, and what is read at once holds its caller.
    most = max(_LEAST_BATCH, min(_BATCH, _BATCH_BYTES // value_size))
    keys = ctypes.create_string_buffer(key_size * most)
    values = ctypes.create_string_buffer(value_size * most)
    while not last:
        start = 0 if first else address(position)
        request = attributes(
            "=QQQQIIQQ", start, address(position), address(keys), address(values), most, fd, 0, 0
        )
        try:
            bpf(_MAP_LOOKUP_BATCH, request)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            last = True
        first, count = False, struct.unpack_from("=I", request, 32)[0]
        yield from zip(_split(keys, key_size, count), _split(values, value_size, count), strict=True)


def lookup_range(fd: int, first: int, count: int, size: int) -> bytes:
    """The values of so many entries of an array, one after the other.

    OSError with ENOTSUPP: kernels before 5.13 do not read per-CPU values so.
    """
    # The kernel begins after the entry that it is given.
    before, last = (
        ctypes.create_string_buffer(struct.pack("=i", first - 1), 4),
        ctypes.create_string_buffer(4),
    )
    keys, values = ctypes.create_string_buffer(4 * count), ctypes.create_string_buffer(size * count)
    pointers = (address(before) if first else 0, address(last), address(keys), address(values))
    try:
        bpf(_MAP_LOOKUP_BATCH, attributes("=QQQQIIQQ", *pointers, count, fd, 0, 0))
    except OSError as error:
        # There is nothing behind these entries.
        if error.errno != errno.ENOENT:
            raise
    return values.raw


def update_batch(fd: int, entries: Mapping[bytes, bytes]) -> None:
    """Store many entries of a hash map."""
    if entries:
        keys, values = b"".join(entries), b"".join(entries.values())
        held, new = ctypes.create_string_buffer(keys), ctypes.create_string_buffer(values)
        pointers = (0, 0, address(held), address(new))
        bpf(_MAP_UPDATE_BATCH, attributes("=QQQQIIQQ", *pointers, len(entries), fd, 0, 0))


def delete_batch(fd: int, keys: Sequence[bytes]) -> None:
    """Remove many entries of a hash map; those that are not there do not matter."""
    done = 0
    while done < len(keys):
        held = ctypes.create_string_buffer(b"".join(keys[done:]))
        request = attributes("=QQQQIIQQ", 0, 0, address(held), 0, len(keys) - done, fd, 0, 0)
        try:
            bpf(_MAP_DELETE_BATCH, request)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            # The kernel stops at a key that is not there.
            done += 1
        done += struct.unpack_from("=I", request, 32)[0]


def _split(data: ctypes.Array[ctypes.c_char], size: int, count: int) -> Iterator[bytes]:
    """The first values of so many bytes each; the buffer may be filled again meanwhile."""
    found = bytes(memoryview(data)[: size * count])
    return (found[start : start + size] for start in range(0, size * count, size))


def program_info(fd: int) -> ProgramInfo:
    """Id and tag of a program."""
    info = ctypes.create_string_buffer(_PROGRAM_INFO_SIZE)
    bpf(_OBJ_GET_INFO_BY_FD, attributes("=IIQ", fd, len(info), address(info)))
    _, id_, tag = struct.unpack_from("=II8s", info)
    (name,) = struct.unpack_from("=16s", info, _PROGRAM_NAME_OFFSET)
    return ProgramInfo(id_, tag, name.rstrip(b"\0").decode("ascii"))


def map_shape(fd: int) -> MapShape:
    """The shape of a map."""
    info = ctypes.create_string_buffer(_MAP_INFO_SIZE)
    bpf(_OBJ_GET_INFO_BY_FD, attributes("=IIQ", fd, len(info), address(info)))
    return MapShape(*struct.unpack_from("=I4xIIII", info))


def program_by_id(id_: int) -> int:
    """A descriptor of a loaded program."""
    return bpf(_PROG_GET_FD_BY_ID, attributes("=III", id_, 0, 0))


def is_bpffs(path: Path) -> bool:
    """Whether pins can be made there."""
    status = ctypes.create_string_buffer(256)
    if _libc.statfs(os.fsencode(path), status) != 0:
        return False
    return bool(struct.unpack_from("=I", status)[0] == _BPFFS_MAGIC)


def possible_cpus() -> int:
    """How many values an entry of a per-CPU map has."""
    text = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii")
    return int(text.strip().replace(",", "-").split("-")[-1]) + 1
