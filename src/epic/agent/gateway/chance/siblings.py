# SPDX-License-Identifier: Apache-2.0
"""Pure: a gateway's siblings as the control plane sends them, and what the programs are to have of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, KeysView, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address

from epic.agent.tunnel.keys import key_slots
from epic.bpf import dataplane as bpf
from epic.bpf.dataplane import Address
from epic.model.values.naming import GatewayId
from epic.proto import epic_pb2

MOST = 16
"""Siblings of one gateway: each has a bit in the header of what is passed on."""


@dataclass(frozen=True, slots=True)
class Sibling:
    """An instance of the gateway that lives, by its node."""

    node: str
    index: int
    address: Address
    draining: bool
    leaving: bool = False
    """Nothing is passed on to it any more, but it may still pass on what comes to it."""
    joined: int = 0
    """Number of the first list with it since it was in none."""


@dataclass(frozen=True, slots=True)
class Siblings:
    """The siblings of one gateway in the order in which they are tried."""

    gateway: str
    publics: tuple[Address, ...]
    siblings: tuple[Sibling, ...]
    keys: tuple[bytes | None, bytes | None] = field(repr=False)
    active: int
    version: str
    """Of the resource as it came."""

    def others(self, node: str) -> tuple[Sibling, ...]:
        """Those on other nodes that packets may be passed on to."""
        return tuple(s for s in self.siblings if s.node != node and not s.leaving)

    def own(self, node: str) -> Sibling | None:
        """The one on this node."""
        return next((sibling for sibling in self.siblings if sibling.node == node), None)


class SiblingsIndex:
    """The siblings of gateways, found by gateway, by public address and by the nodes that they are on."""

    def __init__(self) -> None:
        self.all: Mapping[str, Siblings] = {}
        """By gateway. Another mapping after each change, for others read it meanwhile."""
        self._owners: dict[Address, dict[str, None]] = {}
        self._at: dict[Address, set[str]] = {}

    @property
    def publics(self) -> KeysView[Address]:
        """The public addresses of all."""
        return self._owners.keys()

    def owner(self, public: Address) -> str | None:
        """The gateway that has the address, as was said last."""
        owners = self._owners.get(public)
        return next(reversed(owners)) if owners else None

    def at(self, node: Address) -> list[Address]:
        """The public addresses of the gateways that have a sibling at this node's address."""
        return [public for gateway in self._at.get(node, ()) for public in self.all[gateway].publics]

    def change(self, wanted: Mapping[str, Siblings | None]) -> list[Address]:
        """These gateways have these siblings now, None: none; returns the public addresses concerned."""
        now, touched = dict(self.all), list[Address]()
        for gateway, siblings in wanted.items():
            before = now.get(gateway)
            if before is siblings:
                continue
            if before is not None:
                touched += before.publics
                self._forget(before)
                if siblings is None:
                    del now[gateway]
            if siblings is not None:
                touched += siblings.publics
                self._note(siblings)
                now[gateway] = siblings
        self.all = now
        return touched

    def _note(self, siblings: Siblings) -> None:
        for public in siblings.publics:
            self._owners.setdefault(public, {})[siblings.gateway] = None
        for sibling in siblings.siblings:
            self._at.setdefault(sibling.address, set()).add(siblings.gateway)

    def _forget(self, siblings: Siblings) -> None:
        for public in siblings.publics:
            owners = self._owners[public]
            del owners[siblings.gateway]
            if not owners:
                del self._owners[public]
        for sibling in siblings.siblings:
            gateways = self._at[sibling.address]
            gateways.discard(siblings.gateway)
            if not gateways:
                del self._at[sibling.address]


def read_publics(texts: Sequence[str]) -> tuple[Address, ...]:
    """A gateway's public addresses; ValueError unless they are one, or one of each family."""
    found = tuple(map(ip_address, texts))
    if not found or len({address.version for address in found}) < len(found):
        raise ValueError(
            f"public addresses {', '.join(texts) or 'none'}; there is one, or one of each family"
        )
    return found


def read_siblings(message: epic_pb2.Siblings, version: str) -> Siblings:
    """What the resource means; ValueError when it makes no sense."""
    GatewayId.parse(message.gateway)
    siblings = tuple(
        Sibling(s.node, s.index, ip_address(s.address), s.draining, s.leaving, s.joined)
        for s in message.siblings
    )
    if len(siblings) > MOST:
        raise ValueError(f"{len(siblings)} siblings; there can be {MOST}")
    for what, values in (
        ("index", [s.index for s in siblings]),
        ("node", [s.node for s in siblings]),
        ("address", [s.address for s in siblings]),
    ):
        if len(set(values)) < len(values):
            raise ValueError(f"two siblings have the same {what}")
    if any(s.index >= MOST for s in siblings):
        raise ValueError(f"an index is 0 to {MOST - 1}")
    keys = key_slots([(k.epoch, k.secret) for k in message.keys], message.signing_epoch)
    return Siblings(
        gateway=message.gateway,
        publics=read_publics(message.public_addresses),
        siblings=siblings,
        keys=keys.slots,
        active=keys.signing % 2,
        version=version,
    )


def program(
    siblings: Siblings, node: str, namespace: int | None, lost: Collection[Address]
) -> bpf.Siblings | None:
    """What the programs are to have on `node`; None when it is not among them.

    `namespace` is the id of the instance's network namespace, `lost` are the addresses of nodes that are
    silent.
    """
    own = siblings.own(node)
    if own is None:
        return None
    return bpf.Siblings(
        own=own.index,
        netns=namespace,
        siblings=tuple(
            bpf.Sibling(
                index=s.index,
                address=s.address,
                draining=s.draining,
                alive=s is own or s.address not in lost,
                leaving=s.leaving,
                joined=s.joined & bpf.JOINED_MASK,
            )
            for s in siblings.siblings
        ),
        keys=siblings.keys,
        active=siblings.active,
        account=account_number(GatewayId.parse(siblings.gateway).account),
    )


def account_number(account: str) -> int:
    """By which the programs tell accounts apart: the same on each start, and no two accounts' by chance."""
    return int.from_bytes(sha256(account.encode()).digest()[:8], "little") | 1


def lost_in(entries: Iterable[bpf.Siblings]) -> frozenset[Address]:
    """The nodes that an earlier agent found to be silent."""
    return frozenset(s.address for entry in entries for s in entry.siblings if not s.alive)
