"""The maps of tunnels, and what the programs write of each: where its far end is, and its traffic."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections import deque

from epic.bpf import records
from epic.bpf.maps import Maps
from epic.bpf.records import Peer, Tunnel, TunnelCounters, TunnelRecord, Underlay
from epic.errors import Invalid, NotFound

MAX_TUNNELS = 16384
_SIOCGIFMTU = 0x8921


class TunnelTable:
    """Tunnels by id. Each has a slot in the arrays that the programs write to."""

    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        used = {records.unpack_tunnel(value).slot for _, value in maps.tunnels.items()}
        # A slot that was left is taken again as late as possible: packets may still be on their way.
        self._free = deque(slot for slot in range(MAX_TUNNELS) if slot not in used)

    def ids(self) -> set[int]:
        """All tunnels."""
        return {records.ID.unpack(key)[0] for key, _ in self._maps.tunnels.items()}

    def put(self, tunnel: Tunnel) -> None:
        """Create or change; what was observed of the far end stays."""
        key, before = records.ID.pack(tunnel.id), self._get(tunnel.id)
        underlay = _underlay(tunnel)
        slot = before.slot if before else self._take_slot()
        value = records.pack_tunnel(tunnel, slot, underlay)
        if tunnel.local is not None:
            self._maps.locals.set(records.pack_address(tunnel.local), records.ID.pack(underlay.interface))
        if tunnel.interface is None:
            self._maps.insides.set(tunnel.inside.packed, key)
            if tunnel.inside6 is not None:
                self._maps.insides6.set(tunnel.inside6.packed, key)
        self._maps.tunnels.set(key, value)
        if before:
            self._forget_insides(before, tunnel.id, tunnel)

    def delete(self, id_: int) -> None:
        """Remove, with what was observed of it."""
        before = self._get(id_)
        if before:
            self._maps.tunnels.delete(records.ID.pack(id_))
            self._forget_insides(before, id_)
            self._free.append(before.slot)

    def locals(self) -> set[bytes]:
        """Our addresses that tunnels use."""
        found = (records.unpack_tunnel(value).local for _, value in self._maps.tunnels.items())
        return {records.pack_address(address) for address in found if address is not None}

    def peer(self, id_: int, lane: int) -> Peer | None:
        """The far end as observed, else on workload nodes as declared; None when neither is known."""
        tunnel = self._get(id_)
        value = self._maps.peers.get(records.ID.pack(tunnel.slot)) if tunnel else None
        if tunnel is None or value is None:
            return None
        observed = records.unpack_peer(value, lane)
        if observed is not None or tunnel.interface or tunnel.remote is None:
            return observed
        return Peer(tunnel.remote, tunnel.remote_port, None, 0, 0, 1, spread=False, checksum=False)

    def counters(self) -> dict[int, TunnelCounters]:
        """Traffic of each tunnel."""
        found = {}
        for key, value in self._maps.tunnels.items():
            counted = self._maps.traffic.get(records.ID.pack(records.unpack_tunnel(value).slot))
            found[records.ID.unpack(key)[0]] = records.sum_traffic(counted or b"")
        return found

    def _get(self, id_: int) -> TunnelRecord | None:
        value = self._maps.tunnels.get(records.ID.pack(id_))
        return records.unpack_tunnel(value) if value else None

    def _take_slot(self) -> int:
        if not self._free:
            raise Invalid(f"there are {MAX_TUNNELS} tunnels on this node already, and no room for more")
        slot = self._free.popleft()
        key = records.ID.pack(slot)
        self._maps.peers.set(key, bytes(records.PEER.size))
        self._maps.traffic.set(key, bytes(records.TRAFFIC.size * self._maps.cpus))
        return slot

    def _forget_insides(self, before: TunnelRecord, id_: int, now: Tunnel | None = None) -> None:
        key = records.ID.pack(id_)
        insides, insides6 = self._maps.insides, self._maps.insides6
        if (now is None or before.inside != now.inside) and insides.get(before.inside.packed) == key:
            insides.delete(before.inside.packed)
        if before.inside6 is None or (now is not None and before.inside6 == now.inside6):
            return
        if insides6.get(before.inside6.packed) == key:
            insides6.delete(before.inside6.packed)


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
