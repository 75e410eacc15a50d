# SPDX-License-Identifier: Apache-2.0
"""The server's side of one delta-ADS stream as a state machine without I/O.

Feed it the client's requests (`receive`) and ask what may be sent now (`advance`). Between types it makes
before it breaks. Additions and changes go out in the order of the types, removals in the opposite order when
the client has answered for all of them. For a client that takes one response after the other that will do.
An Envoy does not, so its stream is paced: a type waits for the answers for the types before it, but

- endpoints do not wait for clusters: Envoy answers for a cluster when it is warm, that is, has its endpoints.
  The answer so means that a route may lead to the cluster;
- what a gateway is (clusters, listeners, routes) is brought to the client one state after the other, so that
  a stream of changes cannot keep the routes waiting for ever. Its endpoints are always the newest.

The state of the node says what the client has to report when it has carried out everything: it is sent when
nothing else is left to send, removals included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from envoy.service.discovery.v3 import discovery_pb2 as pb

from epic.ads.snapshot import (
    CLUSTER,
    ENDPOINT,
    LOAD_ASSIGNMENT,
    NODE_STATE,
    TUNNEL,
    TYPES,
    Resources,
    Snapshot,
    Versioned,
)

WILDCARD = "*"
# Always sent as they are in the newest snapshot.
_LIVE = frozenset({TUNNEL, ENDPOINT, LOAD_ASSIGNMENT})
# gRPC receivers, such as Envoys, refuse messages above 4 MiB by default.
_RESPONSE_BYTES = 3 << 20
# What a resource takes in a response besides its name, its version and its body.
_ENTRY_BYTES = 20
_NOTHING: Resources = {}
# What a remembered name takes besides its letters, about.
_NAME_BYTES = 200


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
    updated: Mapping[str, str]
    removed: tuple[str, ...]


@dataclass
class _Subscription:
    """What the client wants and has of one type."""

    wildcard: bool
    held: dict[str, str]
    """Versions that the client has accepted."""
    sent: dict[str, str]
    """Versions that it has if it accepts all that is under way."""
    names: set[str] = field(default_factory=set)
    owed: set[str] = field(default_factory=set)
    """Names that must be answered even if nothing changed or no such resource exists."""
    refused: dict[str, str] = field(default_factory=dict)
    """Versions that the client refused; sent again only when they change."""
    kept: set[str] = field(default_factory=set)
    """Names that the client would not let go of; removed again with the next snapshot."""
    alone: set[str] = field(default_factory=set)
    """Names from a refused response of several; sent one by one to find the culprit."""
    greeted: bool = False
    outstanding: dict[str, _Sent] = field(default_factory=dict)
    complete: Resources | None = None
    """The resources of which nothing was left to send when last looked at."""
    named: int = 0
    """Bytes that the names in `names`, and those that the client began with, take."""

    def subscribe(self, names: Iterable[str], *, first: bool) -> None:
        self.complete = None
        for name in names:
            if name == WILDCARD:
                self.wildcard = True
                continue
            if name not in self.names:
                self.named += _NAME_BYTES + len(name)
            self.names.add(name)
            self.refused.pop(name, None)
            # A new stream states the versions that the client has; later it may have forgotten one.
            if not first or name not in self.held:
                self.owed.add(name)

    def unsubscribe(self, names: Iterable[str]) -> None:
        self.complete = None
        for name in names:
            if name == WILDCARD:
                self.wildcard = False
            if name in self.names:
                self.named -= _NAME_BYTES + len(name)
            self.names.discard(name)
            self.owed.discard(name)
            if self.wildcard and name in self.sent:
                self.owed.add(name)
        if not self.wildcard:
            for versions in (self.held, self.sent):
                for name in versions.keys() - self.names:
                    del versions[name]

    def owe(self, names: Iterable[str]) -> None:
        self.complete = None
        self.owed.update(names)

    def changed(self, resources: Resources) -> list[str]:
        """Names to send, sorted: changed ones, and owed ones (present or not)."""
        if resources is self.complete:
            return []
        found = [name for name in self._wanted(resources) if self._is_due(name, resources.get(name))]
        self.complete = None if found else resources
        return sorted(found)

    def gone(self, resources: Resources) -> list[str]:
        """Names of which the client must be told that they exist no more, sorted."""
        return sorted(self.surplus(resources) - self.kept)

    def surplus(self, resources: Resources) -> set[str]:
        """Names that the client has and should not have."""
        return self.sent.keys() - resources.keys()

    def note(self, nonce: str, sent: _Sent) -> None:
        self.outstanding[nonce] = sent
        self.greeted = True
        self.sent.update(sent.updated)
        self.owed.difference_update(sent.updated, sent.removed)
        for name in sent.removed:
            self.sent.pop(name, None)

    def accept(self, sent: _Sent) -> None:
        self.held.update({n: v for n, v in sent.updated.items() if self.wildcard or n in self.names})
        for name in sent.removed:
            self.held.pop(name, None)
        self.alone.difference_update(sent.updated, sent.removed)

    def refuse(self, sent: _Sent) -> None:
        self.complete = None
        for name, version in sent.updated.items():
            if self.sent.get(name) == version:
                del self.sent[name]
                if name in self.held:
                    self.sent[name] = self.held[name]
        for name in sent.removed:
            if name in self.held:
                self.sent.setdefault(name, self.held[name])
        if len(sent.updated) + len(sent.removed) > 1:
            self.alone.update(sent.updated, sent.removed)
            self.owed.update(self.names.intersection(sent.removed) - self.held.keys())
        else:
            self.refused.update(sent.updated)
            self.kept.update(sent.removed)
            self.alone.difference_update(sent.updated, sent.removed)

    def _wanted(self, resources: Resources) -> Iterable[str]:
        return resources.keys() | self.names if self.wildcard else self.names

    def _is_due(self, name: str, resource: Versioned | None) -> bool:
        if name in self.owed or resource is None:
            return name in self.owed
        return resource.version not in (self.sent.get(name), self.refused.get(name))


class Stream:
    """One stream's subscriptions; `order` ranks the types, others come last."""

    def __init__(self, *, paced: bool = True, order: Sequence[str] = TYPES) -> None:
        self._paced = paced
        self._order = order
        self._subscriptions: dict[str, _Subscription] = {}
        self._nonce = 0
        self._target: Snapshot = {}
        self._newest: Snapshot = {}

    def receive(self, request: pb.DeltaDiscoveryRequest) -> Acked | Refused | None:
        """Take in a request; returns what it says of an earlier response, if it does."""
        subscription = self._subscriptions.get(request.type_url)
        first = subscription is None
        if subscription is None:
            held = dict(request.initial_resource_versions)
            wildcard = not request.resource_names_subscribe
            began = sum(_NAME_BYTES + len(name) + len(version) for name, version in held.items())
            subscription = _Subscription(wildcard=wildcard, held=held, sent=dict(held), named=began)
            self._subscriptions[request.type_url] = subscription
        if request.resource_names_subscribe:
            subscription.subscribe(request.resource_names_subscribe, first=first)
        if request.resource_names_unsubscribe:
            subscription.unsubscribe(request.resource_names_unsubscribe)
        return _answer(subscription, request)

    @property
    def remembered(self) -> int:
        """Bytes that are kept because of what the client said, or has not answered; about."""
        return sum(
            _NAME_BYTES
            + subscription.named
            + sum(
                _NAME_BYTES * (1 + len(sent.updated) + len(sent.removed))
                for sent in subscription.outstanding.values()
            )
            for subscription in self._subscriptions.values()
        )

    def may_have(self, type_url: str, name: str) -> bool:
        """Whether the client has a resource or may get it, as any before it has asked for the type.

        May be called from any thread.
        """
        subscription = self._subscriptions.get(type_url)
        if subscription is None or name in subscription.held or name in subscription.sent:
            return True
        # What was removed stays with the client until it has answered.
        return any(name in s.updated or name in s.removed for s in list(subscription.outstanding.values()))

    def advance(self, snapshot: Snapshot) -> list[pb.DeltaDiscoveryResponse]:
        """The responses that may be sent now, in order, to bring the client towards `snapshot`."""
        types = sorted(self._subscriptions.keys() - {NODE_STATE}, key=self._rank)
        if snapshot is not self._newest:
            self._newest = snapshot
            for subscription in self._subscriptions.values():
                subscription.kept.clear()
        if not self._unsent(types):
            self._target = snapshot
        responses = list(self._additions(types, snapshot))
        if self._target is snapshot and not self._unsent(types):
            responses += self._removals(types, snapshot)
            if NODE_STATE in self._subscriptions and not self._anything_left(types, snapshot):
                responses += self._additions([NODE_STATE], snapshot)
        return responses

    def _additions(self, types: Sequence[str], snapshot: Snapshot) -> Iterator[pb.DeltaDiscoveryResponse]:
        unanswered: set[str] = set()
        for type_url in types:
            subscription = self._subscriptions[type_url]
            if not self._paced or not unanswered - ({CLUSTER} if type_url == LOAD_ASSIGNMENT else set()):
                source = snapshot if type_url in _LIVE else self._target
                resources = source.get(type_url, _NOTHING)
                names = subscription.changed(resources)
                if type_url == LOAD_ASSIGNMENT and not resources.keys() >= set(names):
                    # A cluster on its way must not be without endpoints because it is gone by now.
                    resources = {**self._target.get(type_url, _NOTHING), **resources}
                yield from self._send(type_url, names, resources)
                if subscription.wildcard and not subscription.greeted:
                    yield self._respond(type_url, (), resources)
            if subscription.outstanding:
                unanswered.add(type_url)

    def _removals(self, types: Sequence[str], snapshot: Snapshot) -> Iterator[pb.DeltaDiscoveryResponse]:
        for type_url in reversed(types):
            if any(s.outstanding for s in self._subscriptions.values()):
                return
            resources = snapshot.get(type_url, _NOTHING)
            yield from self._send(type_url, self._subscriptions[type_url].gone(resources), resources)

    def _anything_left(self, types: Iterable[str], snapshot: Snapshot) -> bool:
        wanted = ((self._subscriptions[t], snapshot.get(t, _NOTHING)) for t in types)
        return any(s.changed(resources) or s.surplus(resources) for s, resources in wanted)

    def _unsent(self, types: Iterable[str]) -> bool:
        """Whether the client has yet to be sent something of the state that it is being brought to."""
        return any(
            self._subscriptions[t].changed(self._target.get(t, _NOTHING)) for t in types if t not in _LIVE
        )

    def _rank(self, type_url: str) -> tuple[int, str]:
        rank = self._order.index(type_url) if type_url in self._order else len(self._order)
        return rank, type_url

    def _send(
        self, type_url: str, names: Sequence[str], resources: Resources
    ) -> Iterator[pb.DeltaDiscoveryResponse]:
        if type_url == CLUSTER:
            self._owe_endpoints(name for name in names if name in resources)
        alone = self._subscriptions[type_url].alone
        batch: list[str] = []
        size = 0
        for name in names:
            if name in alone:
                yield self._respond(type_url, (name,), resources)
                continue
            batch.append(name)
            size += _entry_bytes(name, resources.get(name))
            if size > _RESPONSE_BYTES:
                yield self._respond(type_url, batch, resources)
                batch, size = [], 0
        if batch:
            yield self._respond(type_url, batch, resources)

    def _respond(
        self, type_url: str, names: Sequence[str], resources: Resources
    ) -> pb.DeltaDiscoveryResponse:
        self._nonce += 1
        response = pb.DeltaDiscoveryResponse(type_url=type_url, nonce=str(self._nonce))
        updated = {name: resources[name].version for name in names if name in resources}
        removed = tuple(name for name in names if name not in resources)
        for name, version in updated.items():
            response.resources.add(name=name, version=version, resource=resources[name].body)
        response.removed_resources.extend(removed)
        self._subscriptions[type_url].note(response.nonce, _Sent(updated, removed))
        return response

    def _owe_endpoints(self, clusters: Iterable[str]) -> None:
        # Envoy warms a changed cluster anew and waits for its endpoints, though they have not changed.
        endpoints = self._subscriptions.get(LOAD_ASSIGNMENT)
        if endpoints is not None:
            endpoints.owe(endpoints.names.intersection(clusters))


def _answer(subscription: _Subscription, request: pb.DeltaDiscoveryRequest) -> Acked | Refused | None:
    sent = subscription.outstanding.pop(request.response_nonce, None)
    if sent is None:
        return None
    if request.HasField("error_detail"):
        subscription.refuse(sent)
        return Refused(request.type_url, request.error_detail.message, tuple(sent.updated))
    subscription.accept(sent)
    return Acked(request.type_url, dict(subscription.held))


def _entry_bytes(name: str, resource: Versioned | None) -> int:
    """What a resource, or the removal of one, takes in a response, at most."""
    content = resource.body.ByteSize() + len(resource.version) if resource is not None else 0
    return len(name.encode()) + content + _ENTRY_BYTES
