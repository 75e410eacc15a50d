# SPDX-License-Identifier: Apache-2.0
"""Pure: endpoints that cannot be reached now, and what their gateway's Envoy is told therefore."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from enum import Enum
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


class Reach(Enum):
    """How an endpoint is reached."""

    UP = 1
    DOWN = 2
    """Its tunnel is silent: the Envoy knows it as unhealthy."""
    NONE = 3
    """The programs send nothing there: the Envoy does not know it, for nothing is kept for what it names."""


class _Reached(NamedTuple):
    """Those of some endpoints that are not `UP`."""

    down: frozenset[str] = frozenset()
    none: frozenset[str] = frozenset()


class _Marked(NamedTuple):
    """A load assignment, which of its endpoints are not reached, and what the Envoy is told therefore."""

    source: Assignment
    unreached: _Reached
    told: Versioned


_NOTHING: frozenset[str] = frozenset()
_AT_ONCE = 2000
"""Endpoints; looking at so many takes about a millisecond."""


class EndpointMarks:
    """The gateways' resources as their Envoys are told, by how their endpoints are reached.

    Kept from one time to the next: only what is new, or may be reached otherwise than before, is looked at.
    """

    def __init__(self, reach: Callable[[str], Reach]) -> None:
        self._reach = reach
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
            doubtful, known = source.names, _Reached()
        else:
            doubtful = (source.names - earlier.source.names) | (source.names & touched)
            down, none = earlier.unreached
            known = _Reached((down & source.names) - doubtful, (none & source.names) - doubtful)
        unreached = await self._unreached(known, doubtful, turns)
        if not any(unreached):
            return _Marked(source, unreached, source)
        if earlier is not None and earlier.source is source and earlier.unreached == unreached:
            return earlier
        return _Marked(source, unreached, await _mark(gateway, source, unreached, turns))

    async def _unreached(self, known: _Reached, names: frozenset[str], turns: LoopTurns) -> _Reached:
        down, none = set(known.down), set(known.none)
        for part in turns.parts(names):
            for name in part:
                reach = self._reach(name)
                if reach is Reach.DOWN:
                    down.add(name)
                elif reach is Reach.NONE:
                    none.add(name)
            await turns.spend(len(part))
        return _Reached(frozenset(down), frozenset(none))


async def _mark(gateway: str, source: Assignment, unreached: _Reached, turns: LoopTurns) -> Versioned:
    message = endpoint_pb2.ClusterLoadAssignment.FromString(source.value)
    for locality in message.endpoints:
        await _mark_locality(gateway, locality, unreached, turns)
    return versioned(message)


async def _mark_locality(
    gateway: str, locality: endpoint_pb2.LocalityLbEndpoints, unreached: _Reached, turns: LoopTurns
) -> None:
    left_out: list[int] = []
    for part in turns.parts(enumerate(locality.lb_endpoints)):
        for index, endpoint in part:
            if unreached.none and is_among(unreached.none, gateway, endpoint):
                left_out.append(index)
            elif unreached.down and is_among(unreached.down, gateway, endpoint):
                endpoint.health_status = health_check_pb2.UNHEALTHY
        await turns.spend(len(part))
    for indexes in turns.parts(reversed(left_out)):
        for index in indexes:
            del locality.lb_endpoints[index]
        await turns.spend(len(indexes))
