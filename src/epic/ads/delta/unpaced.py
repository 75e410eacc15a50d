# SPDX-License-Identifier: Apache-2.0
"""The server's side of a stream for a client that takes one response after the other, such as an agent.

Additions wait for no answers. What is to go goes in rounds: when all additions are sent, what is surplus then
leaves as soon as the client has answered for what it was sent until then. So a removal waits for nothing that
came after it, and an account that changes without a pause keeps nobody's removals.

That additions come to an end is up to who publishes: not while the stream is behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from envoy.service.discovery.v3 import discovery_pb2 as pb

from epic.ads.delta.protocol import NOTHING, Acked, Refused, Stays, Stream
from epic.ads.snapshot import NODE_STATE, TYPES, Differing, Snapshot

# Names to look at, or resources to send, before others have their turn: some milliseconds.
_MOST_AT_ONCE = 1000
# Removals that may wait while more is published: until they are sent the client has what they make room for.
_MOST_LEAVING = 1000
# Responses that may be unanswered while more is published: what is in them is remembered until then.
_MOST_UNANSWERED = 100


class UnpacedStream(Stream):
    """See the module and `Stream`.

    The snapshot may be changed in place while it is advanced to, if `touch` is told at once.
    """

    # So much is kept in memory for each client that does not read.
    _response_bytes = 512 << 10

    def __init__(self, *, order: Sequence[str] = TYPES, stays: Stays = lambda *_: False) -> None:
        super().__init__(order=order, stays=stays)
        self._snapshot: Snapshot | None = None
        self._in_round = False
        self._awaited: deque[tuple[str, str]] = deque()
        """What is to be answered before the next type's removals: types and nonces."""
        self._removing = ""
        """The type that is being removed of, and its removals that were sent in the round."""
        self._removals: list[tuple[str, str]] = []
        self._is_stated = False
        """Whether the state of the node is of before the round, so that it may follow."""

    def advance(self, snapshot: Snapshot) -> Iterator[pb.DeltaDiscoveryResponse | None]:
        """See `Stream.advance`. A change of one name costs what it costs, however many there are."""
        if snapshot is not self._snapshot:
            self._snapshot, self._is_stated = snapshot, False
        while True:
            types = self._ordered_types()
            for type_url in types:
                resources = snapshot.get(type_url, NOTHING)
                subscription = self._subscriptions[type_url]
                subscription.look(resources, _MOST_AT_ONCE - len(subscription.due))
                if subscription.looks_on and len(subscription.due) < _MOST_AT_ONCE:
                    yield None
                    break
                if (response := self._addition(type_url, snapshot)) is not None:
                    yield response
                    break
            else:
                last = self._last(types, snapshot)
                if last is None:
                    return
                yield last

    def receive(
        self, request: pb.DeltaDiscoveryRequest, held: dict[str, str] | None = None
    ) -> Acked | Refused | None:
        """See `Stream.receive`."""
        known = request.type_url in self._subscriptions
        answer = super().receive(request, held)
        if not known or isinstance(answer, Refused):
            # There may be more to remove before it.
            self._is_stated = False
        return answer

    def touch(self, differing: Differing) -> None:
        """See `Stream.touch`."""
        super().touch(differing)
        if NODE_STATE in differing:
            self._is_stated = False

    @property
    def is_behind(self) -> bool:
        """Whether additions are to be sent, the state of the node, or many removals; or much is unanswered.

        What the client has refused to let go of, for which the state of the node waits, it may have for long.
        """
        subscriptions = self._subscriptions.values()
        unsent = {type_url for type_url, s in self._subscriptions.items() if s.looks_on or s.due}
        if unsent - ({NODE_STATE} if self.keeps else set()):
            return True
        if sum(len(s.outstanding) for s in subscriptions) > _MOST_UNANSWERED:
            return True
        surplus = [s for s in subscriptions if s.surplus]
        if sum(len(s.surplus) for s in surplus) <= _MOST_LEAVING:
            return False
        return sum(len(s.surplus - s.kept) for s in surplus) > _MOST_LEAVING

    def _addition(self, type_url: str, snapshot: Snapshot) -> pb.DeltaDiscoveryResponse | None:
        subscription, resources = self._subscriptions[type_url], snapshot.get(type_url, NOTHING)
        if subscription.due:
            # The next batch is looked for when this one is sent: much may have changed by then.
            return next(self._batches(type_url, sorted(subscription.due), resources))
        if subscription.wildcard and not subscription.greeted:
            return self._respond(type_url, (), resources)
        return None

    def _last(self, types: Sequence[str], snapshot: Snapshot) -> pb.DeltaDiscoveryResponse | None:
        """What follows additions: removals, and the state of the node; None: nothing, or nothing now."""
        while True:
            if not self._in_round:
                self._begin_round(types)
            for type_url in reversed(types):
                if self._subscriptions[type_url].leaving:
                    return None if self._waits(type_url) else self._removal(type_url, snapshot)
            self._in_round, was_stated = False, self._is_stated
            if was_stated and (state := self._state(types, snapshot)) is not None:
                return state
            left = (self._subscriptions[type_url] for type_url in types)
            if was_stated and all(subscription.surplus <= subscription.kept for subscription in left):
                return None

    def _begin_round(self, types: Sequence[str]) -> None:
        """All additions are sent: what is surplus now is no part of what they make."""
        self._in_round = self._is_stated = True
        self._removing = ""
        self._removals.clear()
        for type_url in types:
            subscription = self._subscriptions[type_url]
            subscription.leaving = subscription.surplus - subscription.kept
        self._awaited = deque(
            (type_url, nonce) for type_url, s in self._subscriptions.items() for nonce in s.outstanding
        )

    def _waits(self, type_url: str) -> bool:
        """Whether something that comes before removals of the type in this round is unanswered."""
        if type_url != self._removing:
            self._removing = type_url
            self._awaited.extend(self._removals)
            self._removals.clear()
        while self._awaited:
            awaited, nonce = self._awaited[0]
            if nonce in self._subscriptions[awaited].outstanding:
                return True
            self._awaited.popleft()
        return False

    def _removal(self, type_url: str, snapshot: Snapshot) -> pb.DeltaDiscoveryResponse:
        names = sorted(islice(self._subscriptions[type_url].leaving, _MOST_AT_ONCE))
        response = next(self._batches(type_url, names, snapshot.get(type_url, NOTHING)))
        self._removals.append((type_url, response.nonce))
        return response

    def _state(self, types: Sequence[str], snapshot: Snapshot) -> pb.DeltaDiscoveryResponse | None:
        """The state of the node, unless the client has refused to let go of something."""
        subscription = self._subscriptions.get(NODE_STATE)
        left = (self._subscriptions[type_url] for type_url in types)
        if subscription is None or any(not s.surplus.isdisjoint(s.kept) for s in left):
            return None
        subscription.look(snapshot.get(NODE_STATE, NOTHING))
        return self._addition(NODE_STATE, snapshot)
