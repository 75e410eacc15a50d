"""The server's side of one delta-ADS stream as a state machine without I/O.

Feed it the client's requests (`receive`) and ask what may be sent now (`advance`). Between types it makes
before it breaks: additions and changes go out in the order of the types, each after the client has answered
for the types before it; removals follow when all of that is done, in the opposite order. Of each type one
response is under way at a time, so a slow client gets the newest state and never a queue of old ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from envoy.service.discovery.v3 import discovery_pb2 as pb

from epic.ads.snapshot import CLUSTER, LOAD_ASSIGNMENT, TYPES, Resources, Snapshot

WILDCARD = "*"
# gRPC receivers refuse messages above 4 MiB by default.
_RESPONSE_BYTES = 3 << 20


@dataclass(frozen=True)
class Acked:
    """The client took a response; `held` is everything of the type that it has now."""

    type_url: str
    held: Mapping[str, str]


@dataclass(frozen=True)
class Refused:
    """The client refused a response, with these words; `names` are the resources in it."""

    type_url: str
    message: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Sent:
    nonce: str
    updated: Mapping[str, str]
    removed: tuple[str, ...]


@dataclass
class _Subscription:
    """What the client wants and has of one type."""

    wildcard: bool
    held: dict[str, str]
    names: set[str] = field(default_factory=set)
    owed: set[str] = field(default_factory=set)
    """Names that must be answered even if nothing changed or no such resource exists."""
    refused: dict[str, str] = field(default_factory=dict)
    """Versions that the client refused; sent again only when they change."""
    alone: set[str] = field(default_factory=set)
    """Names from a refused response of several; sent one by one to find the culprit."""
    greeted: bool = False
    outstanding: _Sent | None = None

    def subscribe(self, names: Iterable[str], *, first: bool) -> None:
        for name in names:
            if name == WILDCARD:
                self.wildcard = True
                continue
            self.names.add(name)
            self.refused.pop(name, None)
            # A new stream states the versions that the client has; later it may have forgotten one.
            if not first or name not in self.held:
                self.owed.add(name)

    def unsubscribe(self, names: Iterable[str]) -> None:
        for name in names:
            if name == WILDCARD:
                self.wildcard = False
            self.names.discard(name)
            self.owed.discard(name)
            if self.wildcard and name in self.held:
                self.owed.add(name)
        if not self.wildcard:
            self.held = {name: version for name, version in self.held.items() if name in self.names}

    def wanted(self, resources: Resources) -> Iterable[str]:
        if self.wildcard:
            return resources.keys() | self.names
        return self.names

    def changed(self, resources: Resources) -> list[str]:
        """Names to send, sorted: changed ones, and owed ones (present or not)."""
        found = []
        for name in self.wanted(resources):
            resource = resources.get(name)
            if name in self.owed or (
                resource is not None
                and self.held.get(name) != resource.version
                and self.refused.get(name) != resource.version
            ):
                found.append(name)
        found.sort()
        return [name for name in found if name in self.alone][:1] or found

    def gone(self, resources: Resources) -> list[str]:
        return sorted(name for name in self.held if name not in resources)

    def answered(self, sent: _Sent, *, accepted: bool) -> None:
        self.outstanding = None
        for name in sent.removed:
            self.held.pop(name, None)
        if accepted:
            self.held.update({n: v for n, v in sent.updated.items() if self.wildcard or n in self.names})
            self.alone.difference_update(sent.updated)
        elif len(sent.updated) > 1:
            self.alone.update(sent.updated)
        else:
            self.refused.update(sent.updated)
            self.alone.difference_update(sent.updated)


class Stream:
    """One stream's subscriptions; `order` ranks the types, others come last."""

    def __init__(self, order: Sequence[str] = TYPES) -> None:
        self._order = order
        self._subscriptions: dict[str, _Subscription] = {}
        self._nonce = 0

    def receive(self, request: pb.DeltaDiscoveryRequest) -> Acked | Refused | None:
        """Take in a request; returns what it says of an earlier response, if it does."""
        subscription = self._subscriptions.get(request.type_url)
        first = subscription is None
        if subscription is None:
            subscription = _Subscription(
                wildcard=not request.resource_names_subscribe, held=dict(request.initial_resource_versions)
            )
            self._subscriptions[request.type_url] = subscription
        subscription.subscribe(request.resource_names_subscribe, first=first)
        subscription.unsubscribe(request.resource_names_unsubscribe)
        return self._answer(subscription, request)

    def advance(self, snapshot: Snapshot) -> list[pb.DeltaDiscoveryResponse]:
        """The responses that may be sent now, to bring the client towards `snapshot`."""
        types = sorted(self._subscriptions, key=self._rank)
        for type_url in types:
            subscription = self._subscriptions[type_url]
            if subscription.outstanding is not None:
                return []
            resources = snapshot.get(type_url, {})
            changed = subscription.changed(resources)
            if changed or (subscription.wildcard and not subscription.greeted):
                return [self._send(type_url, changed, resources)]
        for type_url in reversed(types):
            resources = snapshot.get(type_url, {})
            gone = self._subscriptions[type_url].gone(resources)
            if gone:
                return [self._send(type_url, gone, resources)]
        return []

    def _rank(self, type_url: str) -> tuple[int, str]:
        rank = self._order.index(type_url) if type_url in self._order else len(self._order)
        return rank, type_url

    def _answer(
        self, subscription: _Subscription, request: pb.DeltaDiscoveryRequest
    ) -> Acked | Refused | None:
        sent = subscription.outstanding
        if sent is None or request.response_nonce != sent.nonce:
            return None
        accepted = not request.HasField("error_detail")
        subscription.answered(sent, accepted=accepted)
        if accepted:
            return Acked(request.type_url, dict(subscription.held))
        return Refused(request.type_url, request.error_detail.message, tuple(sent.updated))

    def _send(self, type_url: str, names: Sequence[str], resources: Resources) -> pb.DeltaDiscoveryResponse:
        subscription = self._subscriptions[type_url]
        self._nonce += 1
        response = pb.DeltaDiscoveryResponse(type_url=type_url, nonce=str(self._nonce))
        updated: dict[str, str] = {}
        size = 0
        for name in names:
            subscription.owed.discard(name)
            resource = resources.get(name)
            size += len(name)
            if resource is None:
                response.removed_resources.append(name)
            else:
                updated[name] = resource.version
                response.resources.add(name=name, version=resource.version, resource=resource.body)
                size += len(resource.body.value)
            if size > _RESPONSE_BYTES:
                break
        subscription.greeted = True
        subscription.outstanding = _Sent(response.nonce, updated, tuple(response.removed_resources))
        if type_url == CLUSTER:
            self._owe_endpoints(updated)
        return response

    def _owe_endpoints(self, clusters: Iterable[str]) -> None:
        # Envoy warms a changed cluster anew and waits for its endpoints, though they have not changed.
        endpoints = self._subscriptions.get(LOAD_ASSIGNMENT)
        if endpoints is not None:
            endpoints.owed.update(endpoints.names.intersection(clusters))
