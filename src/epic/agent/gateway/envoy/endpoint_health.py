# SPDX-License-Identifier: Apache-2.0
"""Pure: endpoints that cannot be reached now, as their gateway's Envoy is to see them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from ipaddress import ip_address

from envoy.config.core.v3 import health_check_pb2
from envoy.config.endpoint.v3 import endpoint_pb2

from epic.ads.snapshot import LOAD_ASSIGNMENT, Snapshot, Versioned, versioned
from epic.agent.tunnel.health import DEAD_SECONDS
from epic.proto import epic_pb2


class TunnelLiveness:
    """Which tunnels are down: no hello was believed for `DEAD_SECONDS`.

    Ages come from the programs' maps, which outlive the agent. A tunnel that was never heard of has so long
    from when it was seen first.
    """

    def __init__(self) -> None:
        self._since: dict[int, float] = {}
        self._down: frozenset[int] = frozenset()

    @property
    def down(self) -> frozenset[int]:
        """Their ids."""
        return self._down

    def look(self, statuses: Iterable[epic_pb2.TunnelStatus], now: float) -> frozenset[int]:
        """Take in how all tunnels are, at monotonic seconds; those that went down or came back."""
        since: dict[int, float] = {}
        down = set()
        for status in statuses:
            if status.hello_age < 0:
                since[status.id] = self._since.get(status.id, now)
                age = now - since[status.id]
            else:
                age = status.hello_age
            if age > DEAD_SECONDS:
                down.add(status.id)
        changed = self._down ^ down
        self._since, self._down = since, frozenset(down)
        return changed

    def hear(self, ids: Collection[int]) -> frozenset[int]:
        """These have said hello just now; those of them that were down."""
        back = self._down & set(ids)
        self._down -= back
        return back


def mark(part: Snapshot, is_down: Callable[[str], bool]) -> Snapshot:
    """A gateway's resources, with those endpoints unhealthy whose address, as it is written, `is_down`."""
    assignments = part.get(LOAD_ASSIGNMENT, {})
    return {**part, LOAD_ASSIGNMENT: {name: _mark(r, is_down) for name, r in assignments.items()}}


def _mark(resource: Versioned, is_down: Callable[[str], bool]) -> Versioned:
    assignment = endpoint_pb2.ClusterLoadAssignment.FromString(resource.body.value)
    found = False
    for locality in assignment.endpoints:
        for endpoint in locality.lb_endpoints:
            address = endpoint.endpoint.address.socket_address.address
            # Nearly all are well: of these nothing is read.
            if is_down(address) and _is_in_figures(address):
                endpoint.health_status = health_check_pb2.UNHEALTHY
                found = True
    return versioned(assignment) if found else resource


def _is_in_figures(address: str) -> bool:
    """Only such addresses are reached by tunnels."""
    try:
        ip_address(address)
    except ValueError:
        return False
    return True
