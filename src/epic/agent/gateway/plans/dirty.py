# SPDX-License-Identifier: Apache-2.0
"""Pure: where what is wanted and what is there may differ. All else is known to be right."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from epic.agent.tunnel.endpoints import EndpointKey
from epic.bpf.dataplane import Address, Endpoint

_COMPARED_AT_ONCE = 2000
"""Endpoints; comparing so many takes about 4 ms."""
_MOST_NAMES = 2000
"""Of a gateway's endpoints; where there are more, all are looked at."""


class Difference(NamedTuple):
    """An endpoint as the programs have it, and as it should be."""

    there: Endpoint | None
    wanted: Endpoint | None


class EndpointDiff:
    """The endpoints that may not be as they should; after `compare`, all others are."""

    def __init__(self) -> None:
        self._found: dict[EndpointKey, Difference] = {}
        self._stale: set[EndpointKey] = set()
        self._meanwhile: dict[EndpointKey, Difference] | None = None
        self.compared = False

    @property
    def stale(self) -> frozenset[EndpointKey]:
        """Endpoints of which it is not known what is there."""
        return frozenset(self._stale)

    def differ(
        self, known: Callable[[int], bool], insides: Container[Address], held: Container[EndpointKey] = ()
    ) -> bool:
        """Whether any is not as it should be; `known` are the tunnels.

        What the Envoys with these inside addresses do not let go of is there as long as that takes, and is no
        fault; nor are those that are `held` back for it.
        """
        return not self.compared or any(
            found.there != (found.wanted if found.wanted is None or known(found.wanted.tunnel) else None)
            for key, found in self._found.items()
            if (found.wanted is not None or key[0] not in insides) and key not in held
        )

    def kept(self, insides: Container[Address]) -> set[int]:
        """The tunnels of what is there only until Envoys with these inside addresses let go of it."""
        return {
            found.there.tunnel
            for key, found in self._found.items()
            if found.there is not None and found.wanted is None and key[0] in insides
        }

    def is_there(self, key: EndpointKey) -> bool:
        """Whether the programs have an endpoint that is wanted, be it through another tunnel."""
        found = self._found.get(key) if self._found else None
        return self.compared and (found is None or found.there is not None)

    def want(self, key: EndpointKey, before: Endpoint | None, now: Endpoint | None) -> None:
        """Another one is wanted than before."""
        if self.compared:
            found = self._found.get(key)
            self._found[key] = Difference(before if found is None else found.there, now)
        elif self._meanwhile is not None:
            found = self._meanwhile.get(key)
            self._meanwhile[key] = Difference(before if found is None else found.there, now)

    def compare(
        self,
        wanted: Iterable[tuple[EndpointKey, Endpoint]],
        there: dict[EndpointKey, Endpoint],
        known: Callable[[int], bool],
        at_once: int = _COMPARED_AT_ONCE,
    ) -> Iterator[None]:
        """Begin with all that is wanted and all that is there, which is used up; `known` are the tunnels.

        So many are compared with each step; what is wanted in between is taken in.
        """
        self._found, self._meanwhile = {}, {}
        for number, (key, endpoint) in enumerate(wanted, start=1):
            found = there.pop(key, None)
            if found != endpoint or not known(endpoint.tunnel):
                self._found[key] = Difference(found, endpoint)
            if number % at_once == 0:
                yield
        for number, (key, surplus) in enumerate(there.items(), start=1):
            self._found[key] = Difference(surplus, None)
            if number % at_once == 0:
                yield
        meanwhile, self._meanwhile = self._meanwhile, None
        self.compared = True
        for key, (before, now) in meanwhile.items():
            self.want(key, before, now)

    def made(self, endpoints: Mapping[EndpointKey, Endpoint]) -> None:
        """The programs have these now."""
        for key, endpoint in endpoints.items():
            self._found[key] = self._found[key]._replace(there=endpoint)

    def removed(self, keys: Iterable[EndpointKey]) -> None:
        """The programs do not have these any more."""
        for key in keys:
            self._found[key] = self._found[key]._replace(there=None)

    def mark_stale(self, keys: Iterable[EndpointKey]) -> None:
        """A change of these failed somewhere: they must be looked at."""
        self._stale.update(keys)

    def refreshed(self, keys: Iterable[EndpointKey], there: Mapping[EndpointKey, Endpoint]) -> None:
        """The stale ones were looked at."""
        for key in keys:
            self._found[key] = self._found[key]._replace(there=there.get(key))
        self._stale.difference_update(keys)

    def compact(self, known: Callable[[int], bool]) -> dict[EndpointKey, Difference]:
        """Those that differ; the others are forgotten. Nothing is wanted through an unknown tunnel."""
        right: list[EndpointKey] = []
        kept: list[tuple[EndpointKey, Difference]] = []
        unwanted: list[EndpointKey] = []
        for key, found in self._found.items():
            unknown = found.wanted is not None and not known(found.wanted.tunnel)
            if unknown:
                unwanted.append(key)
            if unknown or found.there != found.wanted:
                kept.append((key, found))
            else:
                right.append(key)
        # What this costs is the keys' hashes: those of the fewer are taken, and none for a copy.
        if len(right) > len(kept):
            self._found = dict(kept)
        else:
            for key in right:
                del self._found[key]
        differing = dict(self._found)
        for key in unwanted:
            differing[key] = differing[key]._replace(wanted=None)
        return differing


class DirtySet:
    """What must be looked at: endpoints, tunnels by id, the gateways whose Envoys are to be told, and those
    whose siblings are to be known to the programs."""

    def __init__(self) -> None:
        self.endpoints = EndpointDiff()
        self.tunnels: set[int] = set()
        self.gateways: set[str] = set()
        self.siblings: set[str] = set()
        self._reach: dict[str, set[str] | None] = {}

    def touch_reach(self, gateway: str, names: Iterable[str] | None = None) -> None:
        """These endpoints of a gateway, or any, may be reached otherwise than its Envoy was told."""
        self.gateways.add(gateway)
        known = self._reach.setdefault(gateway, set())
        if names is None or known is None:
            self._reach[gateway] = None
            return
        known.update(islice(names, _MOST_NAMES + 1))
        if len(known) > _MOST_NAMES:
            self._reach[gateway] = None

    def is_touched(self, gateway: str) -> bool:
        """Whether any were named since `take_reach`."""
        return gateway in self._reach

    def take_reach(self, gateway: str) -> frozenset[str] | None:
        """Those that were named since the last time; None: any may be among them."""
        names = self._reach.pop(gateway, set())
        return None if names is None else frozenset(names)
