# SPDX-License-Identifier: Apache-2.0
"""The server's side of one delta-ADS stream as a state machine without I/O.

Feed it the client's requests (`receive`) and ask what may be sent now (`advance`). Between types it makes
before it breaks. Additions and changes go out in the order of the types, removals in the opposite order when
the client has answered for all of them. For a client that takes one response after the other that will do
(see `epic.ads.delta.unpaced`). An Envoy does not, so its stream is paced (`PacedStream`): a type waits for
the answers for the types before it, but

- endpoints do not wait for clusters: Envoy answers for a cluster when it is warm, that is, has its endpoints.
  The answer so means that a route may lead to the cluster;
- what a gateway is (clusters, listeners, routes) is brought to the client one state after the other, so that
  a stream of changes cannot keep the routes waiting for ever. Its endpoints are always the newest.

The state of the node says what the client has to report when it has carried out everything: it is sent when
nothing else is left to send, removals included.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from envoy.service.discovery.v3 import discovery_pb2 as pb

from epic.ads.delta.subscription import NAME_BYTES, Sent, Subscription
from epic.ads.snapshot import (
    CLUSTER,
    ENDPOINT,
    LOAD_ASSIGNMENT,
    NODE_STATE,
    TUNNEL,
    TYPES,
    Differing,
    Resources,
    Snapshot,
    Versioned,
)

# Always sent as they are in the newest snapshot.
_LIVE = frozenset({TUNNEL, ENDPOINT, LOAD_ASSIGNMENT})
# What a resource takes in a response besides its name, its version, its type and its content.
_ENTRY_BYTES = 32
NOTHING: Resources = {}


@dataclass(frozen=True)
class Acked:
    """The client took a response; `held` is everything of the type that it has, kept up to date."""

    type_url: str
    held: Mapping[str, str]


@dataclass(frozen=True)
class Refused:
    """The client refused a response, with these words; `names` are the resources in it."""

    type_url: str
    message: str
    names: tuple[str, ...]


Stays = Callable[[str, str], bool]


class Stream(ABC):
    """One stream's subscriptions; `order` ranks the types, others come last.

    Of a type and name that `stays` says, the client keeps what it has though the snapshot has nothing.
    """

    # Of a response, about. gRPC receivers, such as Envoys, refuse messages above 4 MiB by default.
    _response_bytes = 3 << 20

    def __init__(self, *, order: Sequence[str] = TYPES, stays: Stays = lambda *_: False) -> None:
        self._order = order
        self._stays = stays
        self._subscriptions: dict[str, Subscription] = {}
        self._nonce = 0

    @abstractmethod
    def advance(self, snapshot: Snapshot) -> Iterable[pb.DeltaDiscoveryResponse | None]:
        """The responses that may be sent now, in order, to bring the client towards `snapshot`.

        At None there is more to look at, and others may have their turn first.
        """

    def receive(
        self, request: pb.DeltaDiscoveryRequest, held: dict[str, str] | None = None
    ) -> Acked | Refused | None:
        """Take in a request; returns what it says of an earlier response, if it does.

        `held`: its `initial_resource_versions`, if they were read already; they are the stream's from now on.
        """
        subscription = self._subscriptions.get(request.type_url)
        first = subscription is None
        if subscription is None:
            if held is None:
                held = dict(request.initial_resource_versions)
            wildcard = not request.resource_names_subscribe
            began = sum(NAME_BYTES + len(name) + len(version) for name, version in held.items())
            stays = partial(self._stays, request.type_url)
            subscription = Subscription(
                wildcard=wildcard, held=held, sent=dict(held), named=began, stays=stays
            )
            self._subscriptions[request.type_url] = subscription
        if request.resource_names_subscribe:
            subscription.subscribe(request.resource_names_subscribe, first=first)
        if request.resource_names_unsubscribe:
            subscription.unsubscribe(request.resource_names_unsubscribe)
        return _answer(subscription, request)

    def touch(self, differing: Differing) -> None:
        """The snapshot of the last `advance` was changed in place."""
        for type_url, names in differing.items():
            if type_url in self._subscriptions:
                self._subscriptions[type_url].touch(names)

    @property
    def keeps(self) -> bool:
        """Whether the client has refused to let go of something, and is not asked again by itself."""
        return any(subscription.kept for subscription in self._subscriptions.values())

    def insist(self) -> None:
        """Ask again for what the client would not let go of."""
        for subscription in self._subscriptions.values():
            subscription.kept.clear()

    @property
    def remembered(self) -> int:
        """Bytes that are kept because of what the client said, or has not answered; about."""
        return sum(
            NAME_BYTES + subscription.named + subscription.unanswered
            for subscription in self._subscriptions.values()
        )

    @property
    def is_behind(self) -> bool:
        """Whether so much of the snapshot is yet to be sent that more is better published later."""
        return False

    def may_have(self, type_url: str, name: str) -> bool:
        """Whether the client has a resource or may get it, as any before it has asked for the type.

        May be called from any thread.
        """
        subscription = self._subscriptions.get(type_url)
        if subscription is None or name in subscription.held or name in subscription.sent:
            return True
        # What was removed stays with the client until it has answered.
        return any(name in s.updated or name in s.removed for s in list(subscription.outstanding.values()))

    def _ordered_types(self) -> list[str]:
        """The types that the client asks for, but the state of the node."""
        return sorted(self._subscriptions.keys() - {NODE_STATE}, key=self._rank)

    def _rank(self, type_url: str) -> tuple[int, str]:
        rank = self._order.index(type_url) if type_url in self._order else len(self._order)
        return rank, type_url

    def _batches(
        self, type_url: str, names: Iterable[str], resources: Resources
    ) -> Iterator[pb.DeltaDiscoveryResponse]:
        """The names in responses that the client can take."""
        alone = self._subscriptions[type_url].alone
        batch: list[str] = []
        size = 0
        for name in names:
            if name in alone:
                yield self._respond(type_url, (name,), resources)
                continue
            batch.append(name)
            size += _entry_bytes(name, resources.get(name))
            if size > self._response_bytes:
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
        self._subscriptions[type_url].note(response.nonce, Sent(updated, removed), resources)
        return response


class PacedStream(Stream):
    """For an Envoy: see the module. It compares two whole states by nature."""

    def __init__(self, *, order: Sequence[str] = TYPES) -> None:
        super().__init__(order=order)
        self._target: Snapshot = {}
        self._newest: Snapshot = {}

    def advance(self, snapshot: Snapshot) -> list[pb.DeltaDiscoveryResponse]:
        """See `Stream.advance`."""
        types = self._ordered_types()
        if snapshot is not self._newest:
            self._newest = snapshot
            self.insist()
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
            if not unanswered - ({CLUSTER} if type_url == LOAD_ASSIGNMENT else set()):
                source = snapshot if type_url in _LIVE else self._target
                resources = source.get(type_url, NOTHING)
                subscription.look(resources)
                names = sorted(subscription.due)
                if type_url == LOAD_ASSIGNMENT and not resources.keys() >= set(names):
                    # A cluster on its way must not be without endpoints because it is gone by now.
                    resources = {**self._target.get(type_url, NOTHING), **resources}
                if type_url == CLUSTER:
                    self._owe_endpoints(name for name in names if name in resources)
                yield from self._batches(type_url, names, resources)
                if subscription.wildcard and not subscription.greeted:
                    yield self._respond(type_url, (), resources)
            if subscription.outstanding:
                unanswered.add(type_url)

    def _removals(self, types: Sequence[str], snapshot: Snapshot) -> Iterator[pb.DeltaDiscoveryResponse]:
        for type_url in reversed(types):
            if any(s.outstanding for s in self._subscriptions.values()):
                return
            resources = snapshot.get(type_url, NOTHING)
            subscription = self._subscriptions[type_url]
            subscription.look(resources)
            yield from self._batches(type_url, subscription.gone(), resources)

    def _anything_left(self, types: Iterable[str], snapshot: Snapshot) -> bool:
        for type_url in types:
            subscription = self._subscriptions[type_url]
            subscription.look(snapshot.get(type_url, NOTHING))
            if subscription.due or subscription.surplus:
                return True
        return False

    def _unsent(self, types: Iterable[str]) -> bool:
        """Whether the client has yet to be sent something of the state that it is being brought to."""
        for type_url in types:
            if type_url not in _LIVE:
                subscription = self._subscriptions[type_url]
                subscription.look(self._target.get(type_url, NOTHING))
                if subscription.due:
                    return True
        return False

    def _owe_endpoints(self, clusters: Iterable[str]) -> None:
        # Envoy warms a changed cluster anew and waits for its endpoints, though they have not changed.
        endpoints = self._subscriptions.get(LOAD_ASSIGNMENT)
        if endpoints is not None:
            endpoints.owe(endpoints.names.intersection(clusters))


def _answer(subscription: Subscription, request: pb.DeltaDiscoveryRequest) -> Acked | Refused | None:
    sent = subscription.answered(request.response_nonce)
    if sent is None:
        return None
    if request.HasField("error_detail"):
        subscription.refuse(sent)
        return Refused(request.type_url, request.error_detail.message, tuple(sent.updated))
    subscription.accept(sent)
    return Acked(request.type_url, subscription.held)


def _entry_bytes(name: str, resource: Versioned | None) -> int:
    """What a resource, or the removal of one, takes in a response, at most."""
    size = len(name.encode()) + _ENTRY_BYTES
    if resource is not None:
        size += len(resource.version) + len(resource.type_url) + len(resource.value)
    return size
