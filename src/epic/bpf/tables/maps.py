# SPDX-License-Identifier: Apache-2.0
"""The programs' maps by name, opened through their pins."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

from epic.bpf.programs import syscalls
from epic.bpf.tables import records
from epic.bpf.tables.chance_counters import CHANCE_COUNTERS
from epic.bpf.tables.drop_reasons import DROP_REASONS
from epic.errors import Unavailable

NAMES = (
    "budgets",
    "chances",
    "drops",
    "endpoints",
    "endpoints6",
    "errors",
    "events",
    "hits",
    "insides",
    "insides6",
    "instances",
    "locals",
    "mapped",
    "owners",
    "peers",
    "refused",
    "settings",
    "siblings",
    "slots",
    "traffic",
    "tunnels",
)
FILLED = frozenset(NAMES) - {
    "budgets",
    "chances",
    "drops",
    "errors",
    "events",
    "hits",
    "owners",
    "peers",
    "refused",
    "traffic",
}
"""Those that the agent writes."""

_WINDOW = 256
"""Neighbours in an array that are read at once."""

_BY_SLOT = {"endpoints", "endpoints6", "errors", "insides", "insides6", "peers", "traffic", "tunnels"}
_TOGETHER = (
    # Names of endpoints are written, and forgotten, with the endpoints that have them.
    {"endpoints", "endpoints6", "mapped"},
    # An inside address is forgotten by what its tunnel's entry says.
    {"tunnels", "insides", "insides6"},
    # What the programs keep of a gateway begins with its siblings.
    {"siblings", "budgets", "chances", "hits"},
)


def inherited(same: Iterable[str]) -> frozenset[str]:
    """Of the maps that an older version has in the same shape, those whose entries still make sense."""
    kept = set(same)
    if "slots" not in kept:
        kept -= _BY_SLOT
    for maps in _TOGETHER:
        if not maps <= kept:
            kept -= maps
    return frozenset(kept)


class Map:
    """A map with keys and values of fixed size; per-CPU values come as one string of bytes."""

    def __init__(self, path: Path, key_size: int, value_size: int, cpus: int = 1) -> None:
        self._fd = syscalls.open_pinned(path)
        self._key_size, self._value_size = key_size, value_size * cpus
        shape = syscalls.map_shape(self._fd)
        if (found := (shape.key_size, shape.value_size)) != (key_size, value_size):
            self.close()
            # The kernel would write past our buffers.
            raise Unavailable(
                f"{path} has entries of {found} bytes, not {(key_size, value_size)}: `make bpf`"
            )

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        return syscalls.lookup(self._fd, key, self._value_size)

    def at(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """These entries of an array, in the array's order; neighbours are read together."""
        for _, group in groupby(sorted(indexes), lambda index: index // _WINDOW):
            wanted = list(group)
            try:
                yield from self._range(wanted)
            except OSError as error:
                if error.errno != syscalls.ENOTSUPP:
                    raise
                yield from ((index, self.get(records.ID.pack(index)) or b"") for index in wanted)

    def _range(self, wanted: list[int]) -> list[tuple[int, bytes]]:
        first, size = wanted[0], self._value_size
        values = syscalls.lookup_range(self._fd, first, wanted[-1] - first + 1, size)
        return [(index, values[(index - first) * size : (index - first + 1) * size]) for index in wanted]

    def set(self, key: bytes, value: bytes) -> None:
        """Store, whether the key was there or not."""
        syscalls.update(self._fd, key, value)

    def set_all(self, entries: Mapping[bytes, bytes]) -> None:
        """Store many at once."""
        syscalls.update_batch(self._fd, entries)

    def delete(self, key: bytes) -> bool:
        """Remove; whether the key was there."""
        return syscalls.delete(self._fd, key)

    def delete_all(self, keys: Iterable[bytes]) -> None:
        """Remove many at once; keys that are not there do not matter."""
        syscalls.delete_batch(self._fd, list(keys))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries."""
        return syscalls.items(self._fd, self._key_size, self._value_size)


class Maps:
    """All maps of one loaded object, but for the ring of events."""

    def __init__(self, directory: Path) -> None:
        self.cpus = syscalls.possible_cpus()
        with ExitStack() as opened:

            def open_map(name: str, key_size: int, value_size: int, cpus: int = 1) -> Map:
                found = Map(directory / name, key_size, value_size, cpus)
                opened.callback(found.close)
                return found

            id_, address, endpoint = records.ID.size, records.ADDRESS.size, records.ENDPOINT.size
            self.budgets = open_map("budgets", address, records.COUNT.size)
            self.chances = open_map("chances", address, records.COUNT.size * len(CHANCE_COUNTERS), self.cpus)
            self.drops = open_map("drops", id_, records.COUNT.size, self.cpus)
            self.endpoints = open_map("endpoints", records.ENDPOINT_KEY.size, endpoint)
            self.endpoints6 = open_map("endpoints6", records.ENDPOINT6_KEY.size, endpoint)
            self.hits = open_map("hits", id_, records.COUNT.size, self.cpus)
            self.insides = open_map("insides", records.IPV4.size, id_)
            self.insides6 = open_map("insides6", address, id_)
            self.instances = open_map("instances", id_, records.INSTANCE.size)
            self.locals = open_map("locals", address, id_)
            self.mapped = open_map("mapped", records.REAL_KEY.size, address)
            self.peers = open_map("peers", id_, records.PEER.size)
            self.settings = open_map("settings", id_, records.SETTINGS.size)
            self.siblings = open_map("siblings", address, records.SIBLINGS.size)
            self.slots = open_map("slots", id_, id_)
            self.traffic = open_map("traffic", id_, records.TRAFFIC.size, self.cpus)
            self.tunnels = open_map("tunnels", id_, records.TUNNEL.size)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Give all descriptors back."""
        self._opened.close()

    def dropped(self) -> dict[str, int]:
        """Packets dropped by name of the reason, all CPUs together."""
        return {name: self._sum(index) for index, (name, _) in enumerate(DROP_REASONS)}

    def _sum(self, index: int) -> int:
        values = self.drops.get(records.ID.pack(index))
        return sum(count for (count,) in records.COUNT.iter_unpack(values or b""))
