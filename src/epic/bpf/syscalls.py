"""bpf(2) on pinned objects, by ctypes: no library is kept that does this without compiling."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

_SYS_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
_MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_NEXT_KEY, _OBJ_GET = 1, 2, 3, 4, 7
ANY, NOEXIST = 0, 1
LOCK = 4
"""Flag of maps whose value holds a bpf_spin_lock."""

_libc = ctypes.CDLL(None, use_errno=True)


class _Element(ctypes.Structure):
    _fields_ = (
        ("map_fd", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class _Object(ctypes.Structure):
    _fields_ = (("pathname", ctypes.c_uint64), ("bpf_fd", ctypes.c_uint32), ("file_flags", ctypes.c_uint32))


def _bpf(command: int, attributes: ctypes.Structure, what: str) -> int:
    result: int = _libc.syscall(
        _SYS_BPF, command, ctypes.byref(attributes), ctypes.c_uint32(ctypes.sizeof(attributes))
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"bpf: {what}: {os.strerror(number)}")
    return result


def open_pinned(path: Path) -> int:
    """A file descriptor of the map or program pinned at `path`; the caller closes it."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return _bpf(_OBJ_GET, _Object(ctypes.addressof(name), 0, 0), f"open {path}")


def possible_cpus() -> int:
    """How many values a per-CPU element has."""
    ranges = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii").strip()
    return int(ranges.rpartition(",")[2].rpartition("-")[2]) + 1


class PinnedMap:
    """A pinned map whose keys and values are bytes; `value_size` is that of all CPUs together."""

    def __init__(self, path: Path, key_size: int, value_size: int, flags: int = 0) -> None:
        self._fd = open_pinned(path)
        self._name = path.name
        self._key_size = key_size
        self._value_size = value_size
        self._flags = flags

    def close(self) -> None:
        """Give the file descriptor back."""
        os.close(self._fd)

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`."""
        value = ctypes.create_string_buffer(self._value_size)
        try:
            self._element(_MAP_LOOKUP, key, value, self._flags)
        except FileNotFoundError:
            return None
        return value.raw

    def set(self, key: bytes, value: bytes, *, only_new: bool = False) -> bool:
        """Write an element; False when `only_new` is asked for and the key is there."""
        buffer = ctypes.create_string_buffer(value, self._value_size)
        flags = NOEXIST if only_new else ANY | self._flags
        try:
            self._element(_MAP_UPDATE, key, buffer, flags)
        except FileExistsError:
            return False
        return True

    def delete(self, key: bytes) -> None:
        """Remove an element if it is there."""
        try:
            self._element(_MAP_DELETE, key, None, 0)
        except FileNotFoundError:
            return

    def __iter__(self) -> Iterator[bytes]:
        """All keys; those that come or go meanwhile may be missed."""
        key: bytes | None = None
        following = ctypes.create_string_buffer(self._key_size)
        while True:
            try:
                self._element(_MAP_NEXT_KEY, key, following, 0)
            except FileNotFoundError:
                return
            key = following.raw
            yield key

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All elements."""
        for key in list(self):
            value = self.get(key)
            if value is not None:
                yield key, value

    def _element(
        self, command: int, key: bytes | None, value: ctypes.Array[ctypes.c_char] | None, flags: int
    ) -> None:
        key_buffer = None if key is None else ctypes.create_string_buffer(key, self._key_size)
        attributes = _Element(
            self._fd,
            0 if key_buffer is None else ctypes.addressof(key_buffer),
            0 if value is None else ctypes.addressof(value),
            flags,
        )
        _bpf(command, attributes, f"map {self._name}")
