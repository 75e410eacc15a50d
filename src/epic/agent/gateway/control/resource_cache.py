# SPDX-License-Identifier: Apache-2.0
"""What the control plane sent, kept small: a node may have a hundred thousand endpoints."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

from epic.ads.snapshot import (
    ENDPOINT,
    ENVOY_TYPES,
    INSTANCE,
    LOAD_ASSIGNMENT,
    NODE_STATE,
    SIBLINGS,
    TUNNEL,
    TYPES,
    Resources,
    Snapshot,
    Versioned,
)
from epic.agent.gateway import desired as wanted
from epic.agent.gateway.chance.siblings import Siblings
from epic.agent.gateway.desired import Instance, NodeState, Tunnel
from epic.agent.gateway.envoy.assignments import Assignment, read_assignment
from epic.agent.gateway.plans.dirty import DirtySet
from epic.agent.runtime.completeness import Completeness
from epic.agent.tunnel.endpoints import EndpointKey
from epic.bpf.dataplane import Address, Endpoint

log = logging.getLogger(__name__)
T = TypeVar("T")

_READERS: Mapping[str, Callable[[str, Versioned], Any]] = {
    NODE_STATE: wanted.node_state,
    SIBLINGS: wanted.siblings,
}
_READ_AT_ONCE = 100
_ENDPOINTS_AT_ONCE = 1000
_NOTHING: Mapping[str, Resources] = {url: {} for url in ENVOY_TYPES}


class _Named(NamedTuple):
    """An instance or a tunnel."""

    version: str
    meaning: Instance | Tunnel


class _Reached(NamedTuple):
    """An endpoint."""

    name: str
    version: str
    key: EndpointKey
    endpoint: Endpoint


class ResourceCache:
    """The resources of all types; what is said twice is kept once. `dirty` tells what each change touches."""

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        """By gateway."""
        self.tunnels: dict[int, Tunnel] = {}
        """By id; those of gateways without instance here, too."""
        self.siblings: dict[str, Siblings] = {}
        """By gateway; those of gateways without instance here, too."""
        self.node_state: NodeState | None = None
        """What the control plane said of the node since the agent began."""
        self.endpoint_counts: Counter[str] = Counter()
        """How many endpoints each gateway has, with or without instance here."""
        self.refused: dict[tuple[str, str], str] = {}
        """Resources that make no sense, by type and name: their earlier ones stay."""
        self.dirty = DirtySet()
        self._named: dict[str, dict[str, _Named]] = {INSTANCE: {}, TUNNEL: {}}
        self._endpoints: dict[str, _Reached] = {}
        self._parts: dict[str, Mapping[str, Resources]] = {}
        self._ahead: dict[str, tuple[Versioned, Any]] = {}
        self._received = Completeness(TYPES)
        self._addresses: dict[Address, Address] = {}
        self._plain: dict[int, Endpoint] = {}
        self._shared: dict[str, str] = {}

    @property
    def complete(self) -> bool:
        """Whether all types were received: a part of what is wanted must not take away the rest."""
        return self._received.complete

    @property
    def parts(self) -> Mapping[str, Snapshot]:
        """Each gateway's part of the Envoy resources, under the native names."""
        return self._parts

    def known(self, tunnel: int) -> bool:
        """Whether there is such a tunnel, of an instance here."""
        found = self.tunnels.get(tunnel)
        return found is not None and found.gateway in self.instances

    def tunnel_to(self, name: str) -> int | None:
        """The tunnel to a gateway's endpoint, `GATEWAY/ADDRESS`; None: the programs send nothing there."""
        found = self._endpoints.get(name)
        if found is None or not self.known(found.endpoint.tunnel):
            return None
        return found.endpoint.tunnel if self.dirty.endpoints.is_there(found.key) else None

    def endpoints(self) -> Iterator[tuple[EndpointKey, Endpoint]]:
        """All endpoints that there are now, whatever changes while they are gone through."""
        return ((item.key, item.endpoint) for item in list(self._endpoints.values()))

    def versions(self, type_url: str) -> dict[str, str]:
        """Of each resource of a type, by name."""
        if type_url == ENDPOINT:
            return {name: item.version for name, item in self._endpoints.items()}
        if type_url == NODE_STATE:
            return {}
        if type_url == SIBLINGS:
            return {name: siblings.version for name, siblings in self.siblings.items()}
        if type_url in self._named:
            return {name: item.version for name, item in self._named[type_url].items()}
        return {
            f"{gateway}/{native}": resource.version
            for gateway, part in self._parts.items()
            for native, resource in part[type_url].items()
        }

    def read_ahead(self, type_url: str, updated: Resources) -> Iterator[None]:
        """Read what `update` is to take in then, a part with each step: others have their turn in between."""
        self._ahead.clear()
        if type_url == LOAD_ASSIGNMENT:
            yield from self._read_assignments(updated)
            return
        read = self._reader(type_url)
        for number, (name, resource) in enumerate(updated.items(), start=1):
            # What makes no sense is met again, and refused, when it is taken in.
            with suppress(ValueError):
                self._ahead[name] = (resource, read(name, resource))
            if number % _READ_AT_ONCE == 0:
                yield

    def update(self, type_url: str, updated: Resources, removed: Sequence[str] = ()) -> Resources:
        """Take in a change; returns what of it makes sense. Of what does not, the earlier one stays."""
        self._received.mark(type_url)
        for name in removed:
            self.refused.pop((type_url, name), None)
        gone = [name for name in removed if name not in updated]
        if type_url == NODE_STATE:
            self._update_node(updated, gone)
        elif type_url == ENDPOINT:
            self._update_endpoints(updated, gone)
        elif type_url == SIBLINGS:
            self._update_siblings(updated, gone)
        elif type_url in self._named:
            self._update_named(type_url, updated, gone)
        else:
            self._update_parts(type_url, updated, gone)
        if not self.refused:
            return updated
        return {name: r for name, r in updated.items() if (type_url, name) not in self.refused}

    def clear(self) -> None:
        """Nothing is wanted of this node any more."""
        self.mark_complete()
        for type_url in (*reversed(ENVOY_TYPES), ENDPOINT, TUNNEL, SIBLINGS, INSTANCE):
            self.update(type_url, {}, list(self.versions(type_url)))
        self.refused.clear()

    def mark_complete(self) -> None:
        """All types are known, those without resources too."""
        self._received.mark(*TYPES)

    def _reader(self, type_url: str) -> Callable[[str, Versioned], Any]:
        """What finds the meaning of a resource of a type; raises ValueError."""
        if type_url == ENDPOINT:
            return self._reached
        if type_url in self._named:
            read = wanted.instance if type_url == INSTANCE else wanted.tunnel
            return lambda name, resource: _Named(resource.version, read(name, resource))
        if type_url == LOAD_ASSIGNMENT:
            return lambda name, resource: _finish(self._assignment(name, resource))
        return _READERS.get(type_url, partial(wanted.check, type_url))

    def _read_assignments(self, updated: Resources) -> Iterator[None]:
        weight = 0
        for name, resource in updated.items():
            with suppress(ValueError):
                assignment = yield from self._assignment(name, resource)
                self._ahead[name] = (resource, assignment)
                weight += len(assignment.names)
            weight += _ENDPOINTS_AT_ONCE // _READ_AT_ONCE
            if weight >= _ENDPOINTS_AT_ONCE:
                weight = 0
                yield

    def _assignment(self, name: str, resource: Versioned) -> Generator[None, None, Assignment]:
        wanted.split(name)
        return read_assignment(name, resource, self._share)

    def _share(self, name: str) -> str:
        """What is kept of equal names of endpoints."""
        found = self._endpoints.get(name)
        return found.name if found is not None else self._shared.setdefault(name, name)

    def _read_each(self, type_url: str, updated: Resources) -> dict[str, Any]:
        """What they mean; those that make no sense are refused."""
        found: dict[str, Any] = {}
        read = self._reader(type_url)
        for name, resource in updated.items():
            ahead = self._ahead.pop(name, None)
            try:
                found[name] = ahead[1] if ahead and ahead[0] is resource else read(name, resource)
            except ValueError as error:
                if self.refused.get((type_url, name)) != str(error):
                    log.error("a resource is refused: %s", error)
                self.refused[type_url, name] = str(error)
            else:
                self.refused.pop((type_url, name), None)
        return found

    def _update_node(self, updated: Resources, gone: Sequence[str]) -> None:
        found: dict[str, NodeState] = self._read_each(NODE_STATE, updated)
        for state in found.values():
            self.node_state = state
        if gone and not found:
            self.node_state = None

    def _update_siblings(self, updated: Resources, gone: Iterable[str]) -> None:
        found: dict[str, Siblings] = self._read_each(SIBLINGS, updated)
        self.siblings.update(found)
        for name in gone:
            self.siblings.pop(name, None)
        self.dirty.siblings.update(found, gone)

    def _update_endpoints(self, updated: Resources, gone: Iterable[str]) -> None:
        items: dict[str, _Reached] = self._read_each(ENDPOINT, updated)
        differences = self.dirty.endpoints
        for name, item in items.items():
            before = self._endpoints.get(name)
            if before is None:
                self.endpoint_counts[name.partition("/")[0]] += 1
            if before is not None and before.key != item.key:
                differences.want(before.key, before.endpoint, None)
                before = None
            differences.want(item.key, before.endpoint if before else None, item.endpoint)
            self._touch_reach(name)
        self._endpoints.update(items)
        for name in gone:
            item_gone = self._endpoints.pop(name, None)
            if item_gone is not None:
                differences.want(item_gone.key, item_gone.endpoint, None)
                self._touch_reach(name)
                self._count_less(name.partition("/")[0])

    def _count_less(self, gateway: str) -> None:
        self.endpoint_counts[gateway] -= 1
        if not self.endpoint_counts[gateway]:
            del self.endpoint_counts[gateway]

    def _touch_reach(self, name: str) -> None:
        """The gateway of an endpoint may reach others than before: its Envoy is to be told."""
        self.dirty.touch_reach(name.partition("/")[0], (name,))

    def _reached(self, name: str, resource: Versioned) -> _Reached:
        before = self._endpoints.get(name)
        if before is not None and before.version == resource.version:
            return before
        (inside, address), endpoint = wanted.endpoint(name, resource)
        inside = self._addresses.setdefault(inside, inside)
        if endpoint.real is None:
            endpoint = self._plain.setdefault(endpoint.tunnel, endpoint)
        return _Reached(name, resource.version, (inside, address), endpoint)

    def _update_named(self, type_url: str, updated: Resources, gone: Sequence[str]) -> None:
        items: dict[str, _Named] = self._read_each(type_url, updated)
        group = self._named[type_url]
        before = [group[name].meaning for name in (*items, *gone) if name in group]
        now = [item.meaning for item in items.values()]
        known = self._known_among(before + now)
        group.update(items)
        for name in gone:
            group.pop(name, None)
        for meaning in before:
            self._forget(meaning)
        for meaning in now:
            self._learn(meaning)
        self._touch(before + now, known)

    def _learn(self, meaning: Instance | Tunnel) -> None:
        if isinstance(meaning, Instance):
            self.instances[meaning.gateway] = meaning
        else:
            self.tunnels[meaning.id] = meaning

    def _forget(self, meaning: Instance | Tunnel) -> None:
        if isinstance(meaning, Instance):
            self.instances.pop(meaning.gateway, None)
        else:
            self.tunnels.pop(meaning.id, None)

    def _known_among(self, meanings: Iterable[Instance | Tunnel]) -> set[int]:
        """The tunnels among these, and of these instances, that are known."""
        meanings = list(meanings)
        gateways = {m.gateway for m in meanings if isinstance(m, Instance)}
        found = {m.id for m in meanings if isinstance(m, Tunnel) and self.known(m.id)}
        if gateways:
            found |= {id_ for id_, t in self.tunnels.items() if t.gateway in gateways and self.known(id_)}
        return found

    def _touch(self, meanings: Collection[Instance | Tunnel], known: set[int]) -> None:
        """`known` were the tunnels before."""
        instances = {m.gateway for m in meanings if isinstance(m, Instance)}
        self.dirty.gateways |= instances
        self.dirty.siblings |= instances
        now = self._known_among(meanings)
        changed = known ^ now
        # Endpoints behind them can be reached now, or cannot any more.
        for gateway in {m.gateway for m in meanings if isinstance(m, Tunnel) and m.id in changed}:
            self.dirty.touch_reach(gateway)
        self.dirty.tunnels.update(changed, (m.id for m in meanings if isinstance(m, Tunnel)))
        lost = known - now
        if lost:
            # Nothing is said of these endpoints, but they are wanted no more.
            for key, endpoint in self.endpoints():
                if endpoint.tunnel in lost:
                    self.dirty.endpoints.want(key, endpoint, endpoint)

    def _update_parts(self, type_url: str, updated: Resources, gone: Iterable[str]) -> None:
        read: dict[str, Versioned] = self._read_each(type_url, updated)
        changed: dict[str, dict[str, Versioned]] = {}

        def part(gateway: str) -> dict[str, Versioned]:
            if gateway not in changed:
                # What was published before stays as it was.
                changed[gateway] = dict(self._parts.get(gateway, _NOTHING)[type_url])
            return changed[gateway]

        for name, resource in read.items():
            gateway, _, native = name.partition("/")
            part(gateway)[native] = resource
        for name in gone:
            gateway, _, native = name.partition("/")
            part(gateway).pop(native, None)
        for gateway, group in changed.items():
            whole = {**self._parts.get(gateway, _NOTHING), type_url: group}
            self._parts[gateway] = whole
            if not any(whole.values()):
                del self._parts[gateway]
        self._shared.clear()
        self.dirty.gateways.update(changed)


def _finish(steps: Generator[None, None, T]) -> T:
    """What comes of it when it is done at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)
