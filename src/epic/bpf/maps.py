"""The programs' maps by name, opened through their pins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from epic.bpf import records, syscalls
from epic.bpf.drop_reasons import DROP_REASONS

NAMES = ("drops", "endpoints", "insides", "instances", "locals", "peers", "traffic", "tunnels")


class Map:
    """A hash map with keys and values of fixed size; per-CPU values come as one string of bytes."""

    def __init__(self, path: Path, key_size: int, value_size: int) -> None:
        self._fd = syscalls.open_pinned(path)
        self._key_size, self._value_size = key_size, value_size

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        return syscalls.lookup(self._fd, key, self._value_size)

    def set(self, key: bytes, value: bytes) -> None:
        """Store, whether the key was there or not."""
        syscalls.update(self._fd, key, value)

    def add(self, key: bytes, value: bytes) -> bool:
        """Store unless the key is there; whether it was stored."""
        return syscalls.update(self._fd, key, value, syscalls.UPDATE_NEW)

    def delete(self, key: bytes) -> bool:
        """Remove; whether the key was there."""
        return syscalls.delete(self._fd, key)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries."""
        return syscalls.items(self._fd, self._key_size, self._value_size)


class Maps:
    """All maps of one loaded object."""

    def __init__(self, directory: Path) -> None:
        cpus = syscalls.possible_cpus()
        self.cpus = cpus
        self.drops = Map(directory / "drops", records.ID.size, records.COUNT.size * cpus)
        self.endpoints = Map(directory / "endpoints", records.ENDPOINT_KEY.size, records.ID.size)
        self.insides = Map(directory / "insides", records.ADDRESS.size, records.INSIDE.size)
        self.instances = Map(directory / "instances", records.ID.size, records.INSTANCE.size)
        self.locals = Map(directory / "locals", records.ADDRESS.size, records.ID.size)
        self.peers = Map(directory / "peers", records.ID.size, records.PEER.size)
        self.traffic = Map(directory / "traffic", records.ID.size, records.TRAFFIC.size * cpus)
        self.tunnels = Map(directory / "tunnels", records.ID.size, records.TUNNEL.size)

    def close(self) -> None:
        """Give all descriptors back."""
        for name in NAMES:
            getattr(self, name).close()

    def dropped(self) -> dict[str, int]:
        """Packets dropped by name of the reason, all CPUs together."""
        return {name: self._sum(index) for index, (name, _) in enumerate(DROP_REASONS)}

    def _sum(self, index: int) -> int:
        values = self.drops.get(records.ID.pack(index))
        return sum(count for (count,) in records.COUNT.iter_unpack(values or b""))
