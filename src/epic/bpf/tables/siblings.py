# SPDX-License-Identifier: Apache-2.0
"""Second chance: who the siblings of the gateways here are, and what became of the gateways' packets."""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from epic.bpf.packets.siphash import KEY_LENGTH
from epic.bpf.tables import records
from epic.bpf.tables.budgets import Budgets
from epic.bpf.tables.chance_counters import CHANCE_COUNTERS, SecondChanceCounters
from epic.bpf.tables.maps import Maps
from epic.bpf.tables.records import MAX_SIBLINGS, SIBLINGS, Address
from epic.errors import Invalid

MAX_GATEWAYS = 16384

JOINED_MASK = 0xFFFF
COUNTS = struct.Struct(f"={len(CHANCE_COUNTERS)}Q")
_JOINED = struct.Struct(f"={MAX_SIBLINGS}H")
_ABSENT = -1


@dataclass(frozen=True, slots=True)
class Sibling:
    """An instance of a gateway that lives, on whatever node."""

    index: int
    """0 to 15: its bit in the header of packets passed on."""
    address: Address
    """Underlay address of its node."""
    draining: bool = False
    alive: bool = True
    """False: its node does not answer, so nothing is passed on to it."""
    leaving: bool = False
    """Nothing is passed on to it either, but what it passes on is taken."""
    joined: int = 0
    """When it came, 0 to 65535: another number each time. What was learned of it before is not believed."""


@dataclass(frozen=True, slots=True)
class Siblings:
    """What a node knows of one gateway's siblings."""

    own: int
    """Index of this node's."""
    netns: int | None
    """Id of the instance's network namespace as the node's sees it; None: there is none here."""
    siblings: tuple[Sibling, ...]
    """In the order in which they are asked for a packet of a flow without a known owner."""
    keys: tuple[bytes | None, bytes | None]
    """Slots by parity of the key's epoch; all that are there verify."""
    active: int
    """Slot of the key that signs."""
    account: int
    """Number of the gateway's account, 1 to 2^64 - 1: its gateways share a budget."""


class _Found(NamedTuple):
    """An entry and what it says."""

    value: bytes
    public: Address
    siblings: Siblings


class SiblingTable:
    """Siblings by public address, and what the programs count of each gateway."""

    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        self._found: dict[bytes, _Found] = {}
        held = dict(maps.siblings.items())
        self._slots = {key: _slot(value) for key, value in held.items()}
        self._budgets = Budgets(maps.budgets, {key: _account(value) for key, value in held.items()})
        used = set(self._slots.values())
        # A slot that was left is taken again as late as possible: packets may still be on their way.
        self._free = deque(slot for slot in range(MAX_GATEWAYS) if slot not in used)

    def put(self, public: Address, siblings: Siblings) -> None:
        """Replace a gateway's entry at once; a list that changed raises the gateway's budget for a while.

        Invalid: indexes, keys or addresses that the programs cannot use; too many gateways.
        """
        _check(public, siblings)
        key = records.pack_address(public)
        value = self._maps.siblings.get(key)
        changed = value is None or self._read(key, value).siblings.siblings != siblings.siblings
        changed_ns = time.monotonic_ns() if changed or value is None else _changed_ns(value)
        slot = self._slots[key] if value is not None else self._begin(key)
        self._budgets.put(key, siblings.account, renewed=changed)
        packed = _pack(siblings, slot, changed_ns)
        self._maps.siblings.set(key, packed)
        self._found[key] = _Found(packed, public, siblings)

    def delete(self, public: Address) -> None:
        """Remove; packets for the address are left to the stack again."""
        key = records.pack_address(public)
        for held in (self._maps.siblings, self._maps.chances):
            held.delete(key)
        self._budgets.delete(key)
        if key in self._slots:
            self._free.append(self._slots.pop(key))
        self._found.pop(key, None)

    def all(self) -> Iterator[tuple[Address, Siblings]]:
        """What is there; read bit by bit."""
        for key, value in self._maps.siblings.items():
            found = self._read(key, value)
            yield found.public, found.siblings

    def counters(self) -> Iterator[tuple[Address, SecondChanceCounters]]:
        """What became of each gateway's packets; read bit by bit."""
        for key, value in self._maps.chances.items():
            slot = self._slots.get(key)
            hits = None if slot is None else self._maps.hits.get(records.ID.pack(slot))
            if hits is not None:
                yield _address(key), SecondChanceCounters(_sum_hits(hits), *_sum(value))

    def _read(self, key: bytes, value: bytes) -> _Found:
        """What the entry says. It is kept, for reading it takes far longer than finding it unchanged."""
        found = self._found.get(key)
        if found is None or found.value != value:
            found = self._found[key] = _Found(value, _address(key), _unpack(value))
        return found

    def _begin(self, key: bytes) -> int:
        """All counters of a new gateway at 0; its slot: that of an attempt that failed, if there was one."""
        if key not in self._slots:
            if not self._free:
                raise Invalid(f"there are {MAX_GATEWAYS} gateways on this node already, and no room for more")
            self._slots[key] = self._free.popleft()
        slot = self._slots[key]
        self._maps.hits.set(records.ID.pack(slot), bytes(records.COUNT.size * self._maps.cpus))
        self._maps.chances.set(key, bytes(COUNTS.size * self._maps.cpus))
        return slot


def _address(key: bytes) -> Address:
    found = records.unpack_address(key)
    if found is None:
        raise ValueError("no gateway has the address 0")
    return found


def _check(public: Address, siblings: Siblings) -> None:
    by_index = {each.index: each for each in siblings.siblings}
    if len(by_index) != len(siblings.siblings) or not by_index.keys() <= set(range(MAX_SIBLINGS)):
        raise Invalid(f"{public}: siblings have indexes of their own from 0 to {MAX_SIBLINGS - 1}")
    if siblings.own not in by_index:
        raise Invalid(f"{public}: this node, {siblings.own}, is not among the siblings {sorted(by_index)}")
    if any(not 0 <= each.joined <= JOINED_MASK for each in siblings.siblings):
        raise Invalid(f"{public}: a sibling has joined at a number from 0 to {JOINED_MASK}")
    if siblings.netns is not None and siblings.netns < 0:
        raise Invalid(f"{public}: {siblings.netns} is no id of a network namespace")
    if not 0 < siblings.account < 1 << 64:
        raise Invalid(f"{public}: {siblings.account} is no number of an account")
    if siblings.active not in (0, 1) or siblings.keys[siblings.active] is None:
        raise Invalid(f"{public}: slot {siblings.active} signs and must hold a key")
    for slot, key in enumerate(siblings.keys):
        if key is not None and len(key) != KEY_LENGTH:
            raise Invalid(f"{public}: the key in slot {slot} has {len(key)} bytes, not {KEY_LENGTH}")


def _bits(indexes: list[int]) -> int:
    return sum(1 << index for index in indexes)


def _pack(siblings: Siblings, slot: int, changed_ns: int) -> bytes:
    """`struct siblings`; who is on the other family's underlay cannot be reached, so it is no candidate."""
    everybody = siblings.siblings
    own = next(each for each in everybody if each.index == siblings.own)
    candidates = [
        each.index
        for each in everybody
        if each.alive and not each.leaving and each is not own and each.address.version == own.address.version
    ]
    addresses = {each.index: records.pack_address(each.address) for each in everybody}
    joined = {each.index: each.joined for each in everybody}
    first, second = (key or bytes(KEY_LENGTH) for key in siblings.keys)
    return SIBLINGS.pack(
        _ABSENT if siblings.netns is None else siblings.netns,
        *(siblings.own, siblings.active),
        _bits([slot for slot, key in enumerate(siblings.keys) if key is not None]),
        len(everybody),
        *(_bits([each.index for each in everybody]), _bits(candidates)),
        _bits([each.index for each in everybody if each.draining]),
        _bits([each.index for each in everybody if each.alive]),
        slot,
        _bits([each.index for each in everybody if each.leaving]),
        sum(each.index << 4 * place for place, each in enumerate(everybody)),
        *(changed_ns, siblings.account, first, second),
        _JOINED.pack(*(joined.get(index, 0) for index in range(MAX_SIBLINGS))),
        b"".join(addresses.get(index, bytes(16)) for index in range(MAX_SIBLINGS)),
    )


def _unpack(value: bytes) -> Siblings:
    netns, own, active, valid, count, *rest = SIBLINGS.unpack(value)
    _, _, draining, alive, _, leaving, order, _, account, *keys, joined, packed = rest
    came = _JOINED.unpack(joined)
    found = []
    for place in range(count):
        index = order >> 4 * place & 15
        address = records.unpack_address(packed[16 * index : 16 * index + 16])
        if address is not None:
            drains, lives, leaves = (bool(bits >> index & 1) for bits in (draining, alive, leaving))
            found.append(Sibling(index, address, drains, lives, leaves, came[index]))
    first, second = (key if valid >> slot & 1 else None for slot, key in enumerate(keys))
    return Siblings(own, None if netns < 0 else netns, tuple(found), (first, second), active, account)


def _changed_ns(value: bytes) -> int:
    return int(SIBLINGS.unpack(value)[12])


def _account(value: bytes) -> int:
    return int(SIBLINGS.unpack(value)[13])


def _slot(value: bytes) -> int:
    return int(SIBLINGS.unpack(value)[9])


def _sum_hits(value: bytes) -> int:
    return sum(count for (count,) in records.COUNT.iter_unpack(value))


def _sum(value: bytes) -> tuple[int, ...]:
    """Over the CPUs."""
    return tuple(map(sum, zip(*COUNTS.iter_unpack(value), strict=True)))
