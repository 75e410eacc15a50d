# SPDX-License-Identifier: Apache-2.0
"""The maps of tunnels, and what the programs write of each: where its far end is, and its traffic."""

from __future__ import annotations

import fcntl
import secrets
import socket
import struct
from collections import deque
from collections.abc import Iterator

from epic.bpf.packets.siphash import KEY_LENGTH
from epic.bpf.tables import records
from epic.bpf.tables.left_insides import LeftInsides
from epic.bpf.tables.maps import Maps
from epic.bpf.tables.records import Address, Peer, Tunnel, TunnelCounters, TunnelRecord, Underlay
from epic.errors import Invalid, NotFound

MAX_TUNNELS = 16384
_SIOCGIFMTU = 0x8921
_CHANGING = bytes(8)
_NO_KEY = bytes(KEY_LENGTH)


class TunnelTable:
    """Tunnels by id. Each has a slot in the arrays of tunnels, far ends and traffic."""

    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        self._left_insides = LeftInsides((maps.insides, maps.insides6))
        self._slots: dict[int, int] = {
            records.ID.unpack(key)[0]: records.ID.unpack(value)[0] for key, value in maps.slots.items()
        }
        used = set(self._slots.values())
        # A slot that was left is taken again as late as possible: packets may still be on their way.
        self._free = deque(slot for slot in range(MAX_TUNNELS) if slot not in used)

    def ids(self) -> set[int]:
        """All tunnels."""
        return set(self._slots)

    def has(self, id_: int) -> bool:
        """Whether there is such a tunnel."""
        return id_ in self._slots

    def slot(self, id_: int) -> int:
        """A tunnel's slot; NotFound."""
        try:
            return self._slots[id_]
        except KeyError:
            raise NotFound(f"there is no tunnel {id_} for the endpoint; set it first") from None

    def put(self, tunnel: Tunnel) -> None:
        """Create or change; what was observed of the far end stays."""
        before = self._get(tunnel.id)
        underlay = _underlay(tunnel)
        known = tunnel.id in self._slots
        slot = self._slots[tunnel.id] if known else self._first_free()
        key = records.ID.pack(slot)
        fingerprint = _fingerprint(before, tunnel)
        value = records.pack_tunnel(tunnel, slot, underlay, fingerprint)
        if not known:
            self._maps.traffic.set(key, bytes(records.TRAFFIC.size * self._maps.cpus))
        if not known or not self.generation(tunnel.id):
            self._maps.peers.set(key, records.new_peer(_new_generation()))
        if before is not None and before.fingerprint != fingerprint:
            # Programs may be reading what is written here; without a fingerprint they keep no tags.
            self._maps.tunnels.set(key, records.pack_tunnel(tunnel, slot, underlay, _CHANGING))
        if tunnel.local is not None:
            self._maps.locals.set(records.pack_address(tunnel.local), records.ID.pack(underlay.interface))
        self._maps.tunnels.set(key, value)
        if not known:
            self._maps.slots.set(records.ID.pack(tunnel.id), key)
            self._slots[tunnel.id] = self._free.popleft()
        if tunnel.interface is None:
            self._left_insides.keep(MAX_TUNNELS - len(self._slots))
            self._maps.insides.set(tunnel.inside.packed, key)
            if tunnel.inside6 is not None:
                self._maps.insides6.set(tunnel.inside6.packed, key)
        if before and not before.interface:
            self._leave_insides(before, tunnel)

    def delete(self, id_: int) -> None:
        """Remove, with what was observed of it."""
        if id_ not in self._slots:
            return
        before, slot = self._get(id_), self._slots[id_]
        self._maps.slots.delete(records.ID.pack(id_))
        self._maps.tunnels.set(records.ID.pack(slot), bytes(records.TUNNEL.size))
        if before and not before.interface:
            self._leave_insides(before, None)
        del self._slots[id_]
        self._free.append(slot)

    def forget_insides(self) -> None:
        """Those of tunnels that were deleted long ago: until then nothing to them leaves in the clear."""
        self._left_insides.forget()

    def locals(self) -> set[Address]:
        """Our addresses that tunnels use."""
        found = (self._get(id_) for id_ in self._slots)
        return {tunnel.local for tunnel in found if tunnel is not None and tunnel.local is not None}

    def peer(self, id_: int, lane: int) -> Peer | None:
        """The far end as observed, else on workload nodes as declared; None when neither is known."""
        slot = self._slots.get(id_)
        value = None if slot is None else self._maps.peers.get(records.ID.pack(slot))
        observed = records.unpack_peer(value, lane) if value else None
        tunnel = self._get(id_)
        if observed is not None or tunnel is None or tunnel.interface or tunnel.remote is None:
            return observed
        return Peer(tunnel.remote, tunnel.remote_port, None, 0, 0, 1, spread=False, checksum=False)

    def generation(self, id_: int) -> int:
        """Random, since the counters of the tunnel's hellos began; 0 without such a tunnel."""
        slot = self._slots.get(id_)
        value = None if slot is None else self._maps.peers.get(records.ID.pack(slot))
        return records.generation_of(value) if value else 0

    def counters(self) -> dict[int, TunnelCounters]:
        """Traffic of each tunnel."""
        ids = self._ids_by_slot()
        return {ids[slot]: records.sum_traffic(value) for slot, value in self._maps.traffic.at(ids)}

    def observed(self) -> Iterator[tuple[int, TunnelCounters, tuple[Peer, ...]]]:
        """Traffic of each tunnel, and its far end as the lanes that were heard show it; read bit by bit."""
        ids = self._ids_by_slot()
        traffic, peers = self._maps.traffic.at(ids), self._maps.peers.at(ids)
        for (slot, counts), (_, peer) in zip(traffic, peers, strict=True):
            yield ids[slot], records.sum_traffic(counts), records.unpack_peers(peer)

    def _ids_by_slot(self) -> dict[int, int]:
        return {slot: id_ for id_, slot in self._slots.items()}

    def _get(self, id_: int) -> TunnelRecord | None:
        slot = self._slots.get(id_)
        value = None if slot is None else self._maps.tunnels.get(records.ID.pack(slot))
        found = records.unpack_tunnel(value) if value else None
        # The slots may have come from an older version without the tunnels in them.
        return found if found is not None and found.id == id_ else None

    def _first_free(self) -> int:
        if not self._free:
            raise Invalid(f"there are {MAX_TUNNELS} tunnels on this node already, and no room for more")
        return self._free[0]

    def _leave_insides(self, before: TunnelRecord, now: Tunnel | None) -> None:
        """Of the tunnel as it was, unless another one has taken them."""
        slot = records.ID.pack(before.slot)
        kept = {now.inside, now.inside6} if now else set()
        for insides, old in ((self._maps.insides, before.inside), (self._maps.insides6, before.inside6)):
            if old is not None and old not in kept and insides.get(old.packed) == slot:
                self._left_insides.leave(insides, old.packed)


def _new_generation() -> int:
    return secrets.randbelow((1 << 32) - 1) + 1


def _fingerprint(before: TunnelRecord | None, tunnel: Tunnel) -> bytes:
    """A new one, unless the tags are the same as before."""
    if before is not None:
        keys = (tunnel.keys[0] or _NO_KEY, tunnel.keys[1] or _NO_KEY)
        if (before.service, before.active, before.keys) == (tunnel.service, tunnel.active, keys):
            return before.fingerprint
    # Small numbers are excluded: they could be mistaken for a protocol's.
    return secrets.token_bytes(7) + b"\x01"


def _underlay(tunnel: Tunnel) -> Underlay:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            index = socket.if_nametoindex(tunnel.underlay)
            # Not by netlink: it is asked for each tunnel.
            request = struct.pack("16si12x", tunnel.underlay.encode(), 0)
            reply = fcntl.ioctl(any_socket, _SIOCGIFMTU, request)
        except OSError as error:
            raise NotFound(
                f"the underlay interface {tunnel.underlay} cannot be used: {error.strerror}"
            ) from error
    route = tunnel.route.interface if tunnel.route else None
    return Underlay(
        index,
        struct.unpack_from("16si", reply)[1],
        _index(tunnel.interface, "instance's"),
        index if route == tunnel.underlay else _index(route, "route's"),
    )


def _index(interface: str | None, whose: str) -> int:
    try:
        return socket.if_nametoindex(interface) if interface else 0
    except OSError as error:
        raise NotFound(f"the {whose} interface {interface} cannot be used: {error.strerror}") from error
