"""What the control plane sent, kept small: a node may have a hundred thousand endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from epic.ads.snapshot import (
    ENDPOINT,
    ENVOY_TYPES,
    INSTANCE,
    LOAD_ASSIGNMENT,
    TUNNEL,
    TYPES,
    Resources,
    Snapshot,
    Versioned,
)
from epic.agent import desired as wanted
from epic.agent.desired import Desired, EndpointKey, Instance, Tunnel
from epic.bpf.dataplane import Address, Endpoint
from epic.proto import epic_pb2

_MEANT = (INSTANCE, TUNNEL, ENDPOINT)


class Item(NamedTuple):
    """A resource that is for the agent itself: as it came, for the disk, and what it means."""

    version: str
    content: bytes | None
    """None where the meaning says it all."""
    meaning: object
    endpoint: Endpoint | None = None
    """Of an endpoint, whose key is the meaning: there are many, and one object less each."""


class Held:
    """The resources of all types. What is said twice is kept once."""

    def __init__(self) -> None:
        self._items: dict[str, dict[str, Item]] = {url: {} for url in _MEANT}
        self._envoy: dict[str, dict[str, Versioned]] = {url: {} for url in ENVOY_TYPES}
        self._heard: set[str] = set()
        self._addresses: dict[Address, Address] = {}
        self._plain: dict[int, Endpoint] = {}

    @property
    def complete(self) -> bool:
        """Whether instances are known: without them the rest means nothing."""
        return INSTANCE in self._heard

    @property
    def versions(self) -> dict[str, dict[str, str]]:
        """By type and name."""
        groups: Mapping[str, Mapping[str, Item | Versioned]] = {**self._items, **self._envoy}
        return {url: {name: r.version for name, r in group.items()} for url, group in groups.items()}

    def update(self, type_url: str, updated: Resources, removed: Sequence[str] = ()) -> None:
        """Take in a change; ValueError, and nothing is changed, when a resource makes no sense."""
        if type_url in self._items:
            items = {name: self._item(type_url, name, resource) for name, resource in updated.items()}
            group: dict[str, Item] | dict[str, Versioned] = self._items[type_url]
            self._items[type_url].update(items)
        else:
            wanted.check(type_url, updated)
            group = self._envoy[type_url]
            self._envoy[type_url].update(updated)
        for name in removed:
            if name not in updated:
                group.pop(name, None)
        self._heard.add(type_url)

    def heard_all(self) -> None:
        """All types are known, those without resources too."""
        self._heard.update(TYPES)

    def resources(self) -> Iterator[tuple[str, str, str, bytes]]:
        """Type, name, version and content of each, in the order of additions."""
        for url in TYPES:
            # Another thread may read while this one changes.
            for name, item in list(self._items.get(url, {}).items()):
                yield url, name, item.version, _content(name, item)
            for name, resource in list(self._envoy.get(url, {}).items()):
                yield url, name, resource.version, resource.body.value

    def desired(self) -> Desired:
        """What it asks for."""
        instances = {i.gateway: i for i in self._meanings(INSTANCE) if isinstance(i, Instance)}
        assignments = dict(self._envoy[LOAD_ASSIGNMENT])
        tunnels = (t for t in self._meanings(TUNNEL) if isinstance(t, Tunnel))
        items = self._items[ENDPOINT].values()
        endpoints = (
            (item.meaning, item.endpoint)
            for item in items
            if isinstance(item.meaning, tuple) and item.endpoint is not None
        )
        return wanted.assemble(instances, tunnels, endpoints, assignments)

    def envoy_snapshots(self) -> dict[str, Snapshot]:
        """Each gateway's part of the Envoy resources, under the native names."""
        return wanted.envoy_snapshots(self._envoy)

    def _meanings(self, type_url: str) -> Iterable[object]:
        return (item.meaning for item in self._items[type_url].values())

    def _item(self, type_url: str, name: str, resource: Versioned) -> Item:
        known = self._items[type_url].get(name)
        if known is not None and known.version == resource.version:
            return known
        meaning = wanted.meaning(type_url, name, resource)
        if type_url != ENDPOINT or not isinstance(meaning, tuple):
            return Item(resource.version, resource.body.value, meaning)
        item = self._shared(resource.version, *meaning)
        same = _content(name, item) == resource.body.value
        return item if same else item._replace(content=resource.body.value)

    def _shared(self, version: str, key: EndpointKey, endpoint: Endpoint) -> Item:
        inside = self._addresses.setdefault(key[0], key[0])
        if endpoint.real is None:
            endpoint = self._plain.setdefault(endpoint.tunnel, endpoint)
        return Item(version, None, (inside, key[1]), endpoint)


def _content(name: str, item: Item) -> bytes:
    """The resource's bytes."""
    if item.content is not None or item.endpoint is None or not isinstance(item.meaning, tuple):
        return item.content or b""
    inside, address = item.meaning
    message = epic_pb2.Endpoint(
        gateway=name.partition("/")[0],
        inside_address=str(inside),
        address=str(address),
        tunnel=item.endpoint.tunnel,
        real_address=str(item.endpoint.real or ""),
    )
    content: bytes = message.SerializeToString(deterministic=True)
    return content
