# SPDX-License-Identifier: Apache-2.0
"""Pure: endpoints that cannot be reached now, and what their gateway's Envoy is told therefore."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Set
from typing import NamedTuple

from envoy.config.core.v3 import health_check_pb2
from envoy.config.endpoint.v3 import endpoint_pb2

from epic.ads.snapshot import LOAD_ASSIGNMENT, Snapshot, Versioned, versioned
from epic.agent.gateway.envoy.assignments import Assignment, assignments, is_among
from epic.agent.runtime.turns import LoopTurns
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


class Unreached(NamedTuple):
    """Those of some endpoints that are not reached."""

    down: Set[str] = frozenset()
    """Their tunnels are silent: the Envoy knows them as unhealthy."""
    none: Set[str] = frozenset()
    """The programs send nothing there: the Envoy is not told them, so that it keeps nothing that leaves."""


class _Marked(NamedTuple):
    """A load assignment, which of its endpoints are not reached, and what the Envoy is told therefore."""

    source: Assignment
    unreached: Unreached
    told: Versioned


_NOTHING: frozenset[str] = frozenset()
_AT_ONCE = 2000
"""Endpoints; looking at so many takes about a millisecond."""


class EndpointMarks:
    """The gateways' resources as their Envoys are told, by how their endpoints are reached.

    Kept from one time to the next: only what is new, or may be reached otherwise than before, is looked at.
    """

    def __init__(self, find_unreached: Callable[[Iterable[str]], Unreached]) -> None:
        self._find_unreached = find_unreached
        self._marked: dict[str, dict[str, _Marked]] = {}

    def keep(self, gateways: Collection[str]) -> None:
        """Know these gateways and no others."""
        self._marked = {g: marked for g, marked in self._marked.items() if g in gateways}

    def told(self, gateway: str, names: frozenset[str]) -> frozenset[str]:
        """Those of these names of endpoints that are in what `mark` said last of the gateway."""
        found: set[str] = set()
        for marked in self._marked.get(gateway, {}).values():
            found |= (names & marked.source.names) - marked.unreached.none
        return frozenset(found)

    async def mark(self, gateway: str, part: Snapshot, touched: frozenset[str] | None) -> Snapshot:
        """A gateway's resources, marked. `touched` are the names of endpoints that may be reached otherwise
        than when this was called last; None: any may be. Others have their turn in between."""
        turns = LoopTurns(_AT_ONCE)
        # Who is interrupted begins anew.
        before = self._marked.pop(gateway, {})
        marked: dict[str, _Marked] = {}
        for native, source in assignments(part).items():
            earlier = before.get(native)
            if (
                earlier is not None
                and earlier.source is source
                and touched is not None
                and touched.isdisjoint(source.names)
            ):
                marked[native] = earlier
            else:
                marked[native] = await self._look(gateway, source, earlier, touched, turns)
        self._marked[gateway] = marked
        return {**part, LOAD_ASSIGNMENT: {native: found.told for native, found in marked.items()}}

    async def _look(
        self,
        gateway: str,
        source: Assignment,
        earlier: _Marked | None,
        touched: frozenset[str] | None,
        turns: LoopTurns,
    ) -> _Marked:
        if earlier is None or touched is None:
            doubtful, known = source.names, Unreached()
        else:
            doubtful = (source.names - earlier.source.names) | (source.names & touched)
            down, none = earlier.unreached
            known = Unreached((down & source.names) - doubtful, (none & source.names) - doubtful)
        unreached = await self._unreached(known, doubtful, turns)
        if not any(unreached):
            return _Marked(source, unreached, source)
        if earlier is not None and earlier.source is source and earlier.unreached == unreached:
            return earlier
        return _Marked(source, unreached, await _mark(gateway, source, unreached, turns))

    async def _unreached(self, known: Unreached, names: frozenset[str], turns: LoopTurns) -> Unreached:
        down, none = set(known.down), set(known.none)
        for part in turns.parts(names):
            found = self._find_unreached(part)
            down |= found.down
            none |= found.none
            await turns.spend(len(part))
        return Unreached(frozenset(down), frozenset(none))


async def _mark(gateway: str, source: Assignment, unreached: Unreached, turns: LoopTurns) -> Versioned:
    message = endpoint_pb2.ClusterLoadAssignment.FromString(source.value)
    for locality in message.endpoints:
        if unreached.none:
            await _leave_out(gateway, locality, unreached.none, turns)
        if unreached.down:
            await _set_unhealthy(gateway, locality, unreached.down, turns)
    return versioned(message)


async def _leave_out(
    gateway: str, locality: endpoint_pb2.LocalityLbEndpoints, names: Set[str], turns: LoopTurns
) -> None:
    found: list[int] = []
    for part in turns.parts(enumerate(locality.lb_endpoints)):
        found += (index for index, endpoint in part if is_among(names, gateway, endpoint))
        await turns.spend(len(part))
    for indexes in turns.parts(reversed(found)):
        for index in indexes:
            del locality.lb_endpoints[index]
        await turns.spend(len(indexes))


async def _set_unhealthy(
    gateway: str, locality: endpoint_pb2.LocalityLbEndpoints, names: Set[str], turns: LoopTurns
) -> None:
    for part in turns.parts(locality.lb_endpoints):
        for endpoint in part:
            if is_among(names, gateway, endpoint):
                endpoint.health_status = health_check_pb2.UNHEALTHY
        await turns.spend(len(part))
