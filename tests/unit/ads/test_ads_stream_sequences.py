# SPDX-License-Identifier: Apache-2.0
"""In whatever order what happens: a stream that is told what differs says what one says that compares all.

`EPIC_ADS_SEQUENCES=1000` plays more sequences.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2 as pb
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import status_pb2
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from epic.ads.delta import unpaced
from epic.ads.delta.protocol import Refused
from epic.ads.delta.unpaced import UnpacedStream
from epic.ads.snapshot import (
    CLUSTER,
    ENDPOINT,
    INSTANCE,
    LOAD_ASSIGNMENT,
    NODE_STATE,
    Snapshot,
    Versioned,
    versioned,
)

EXAMPLES = int(os.environ.get("EPIC_ADS_SEQUENCES", "60"))
CHANGING = (INSTANCE, ENDPOINT, CLUSTER, LOAD_ASSIGNMENT)
TYPES = (*CHANGING, NODE_STATE)
NAMES = "abcd"

types = st.sampled_from(TYPES)
names = st.sampled_from(NAMES)
values = st.sampled_from(["1", "2", None])
changes = st.dictionaries(st.tuples(st.sampled_from(CHANGING), names), values, max_size=4)


class Client:
    """What the other end has: of each type it takes what it acknowledges."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, str]] = {type_url: {} for type_url in TYPES}
        self.unanswered: list[pb.DeltaDiscoveryResponse] = []
        self.refused = False

    def answer(self, which: int, message: str) -> pb.DeltaDiscoveryRequest:
        response = self.unanswered.pop(which)
        request = pb.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        if message:
            self.refused = True
            request.error_detail.CopyFrom(status_pb2.Status(code=3, message=message))
            return request
        held = self.held[response.type_url]
        held.update({resource.name: resource.version for resource in response.resources})
        for name in response.removed_resources:
            held.pop(name, None)
        return request


class Comparison(RuleBasedStateMachine):
    """A stream that is told what differs, and one that gets another snapshot for each look."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: dict[str, dict[str, Versioned]] = {type_url: {} for type_url in TYPES}
        self.wanted[NODE_STATE]["node"] = versioned(StringValue(value="0"))
        self.changes = 0
        self.client = Client()
        self.begin()

    def begin(self) -> None:
        self.told, self.comparing = UnpacedStream(), UnpacedStream()
        self.running: Iterator[Any] | None = None
        self.compared: dict[str, dict[str, Versioned]] = {}

    def whole(self) -> Snapshot:
        """All of it made anew; that it is the same snapshot says that each change is told."""
        self.compared |= {type_url: dict(resources) for type_url, resources in self.wanted.items()}
        return self.compared

    def both(self, request: pb.DeltaDiscoveryRequest) -> None:
        said = self.told.receive(request)
        assert said == self.comparing.receive(request)
        assert isinstance(said, Refused) == request.HasField("error_detail")

    @rule(changes=changes)
    def change(self, changes: dict[tuple[str, str], str | None]) -> None:
        self.changes += 1
        for (type_url, name), value in changes.items():
            self.wanted[type_url].pop(name, None)
            if value is not None:
                self.wanted[type_url][name] = versioned(StringValue(value=value))
        differing: dict[str, set[str]] = {}
        for type_url, name in changes:
            differing.setdefault(type_url, set()).add(name)
        if any(type_url == INSTANCE for type_url, _ in changes):
            self.wanted[NODE_STATE]["node"] = versioned(StringValue(value=str(self.changes)))
            differing[NODE_STATE] = {"node"}
        self.told.touch(differing)
        self.comparing.touch(differing)

    @rule()
    def make_a_type_anew(self) -> None:
        self.wanted[ENDPOINT] = dict(self.wanted[ENDPOINT])

    @rule(type_url=types, named=st.sets(names, max_size=2))
    def subscribe(self, type_url: str, named: set[str]) -> None:
        held = self.client.held[type_url] if type_url not in self.told._subscriptions else {}
        request = pb.DeltaDiscoveryRequest(
            type_url=type_url, resource_names_subscribe=sorted(named), initial_resource_versions=held
        )
        self.both(request)

    @rule(type_url=types, named=st.sets(st.sampled_from([*NAMES, "*"]), min_size=1, max_size=2))
    def unsubscribe(self, type_url: str, named: set[str]) -> None:
        if type_url in self.told._subscriptions:
            self.both(pb.DeltaDiscoveryRequest(type_url=type_url, resource_names_unsubscribe=sorted(named)))

    @rule()
    def subscribe_to_all(self) -> None:
        for type_url in TYPES:
            self.subscribe(type_url, set())
            self.subscribe(type_url, {"*"})

    @precondition(lambda self: self.client.unanswered)
    @rule(data=st.data(), refuses=st.sampled_from(["", "", "", "no"]))
    def answer(self, data: st.DataObject, refuses: str) -> None:
        which = data.draw(st.integers(0, len(self.client.unanswered) - 1))
        self.both(self.client.answer(which, refuses))

    @rule()
    def insist(self) -> None:
        assert self.told.keeps == self.comparing.keeps
        self.told.insist()
        self.comparing.insist()

    @rule()
    def reconnect(self) -> None:
        self.client.unanswered.clear()
        self.begin()

    @rule(most=st.integers(1, 3))
    def advance(self, most: int) -> None:
        """It goes on where it was, whatever changed; the other one compares all for each response."""
        self.running = self.running or iter(self.told.advance(self.wanted))
        for _ in range(most):
            said = next(self.running, None)
            assert said == next(iter(self.comparing.advance(self.whole())), None)
            if said is None:
                self.running = None
                return
            self.client.unanswered.append(said)

    @rule()
    def settle(self) -> None:
        """All is taken: the client has what it is to have, but for what it refused."""
        for _ in range(100):
            self.advance(100)
            if not self.client.unanswered:
                break
            while self.client.unanswered:
                self.both(self.client.answer(0, ""))
        else:
            pytest.fail("it never ends")
        for type_url, subscription in self.told._subscriptions.items():
            wanted = {n: r.version for n, r in self.wanted[type_url].items()}
            differing = dict(subscription.held.items() ^ wanted.items()).keys()
            if not subscription.wildcard:
                differing &= subscription.names
            assert differing <= subscription.refused.keys() | subscription.kept

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """What was not looked at yet is all that may be due beyond what is known to be."""
        for type_url, subscription in self.told._subscriptions.items():
            if subscription._seen is self.wanted[type_url]:
                fresh = UnpacedStream()
                fresh._subscriptions = {type_url: _unseen(subscription)}
                other = fresh._subscriptions[type_url]
                other.look(self.wanted[type_url])
                ahead = {*subscription._unseen, *subscription._rest}
                assert other.due - ahead == subscription.due - ahead
                assert other.surplus - ahead == subscription.surplus - ahead


def _unseen(subscription: Any) -> Any:
    """The same, of which nothing was looked at."""
    fields = {
        name: value for name, value in vars(subscription).items() if name not in {"_seen", "_unseen", "_rest"}
    }
    return type(subscription)(**fields)


def test_a_stream_that_is_told_what_differs_says_what_one_says_that_compares_all() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Comparison, settings=settings(max_examples=EXAMPLES, stateful_step_count=40)
    )


def test_a_stream_that_looks_at_two_names_at_a_time_brings_the_client_to_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unpaced, "_MOST_AT_ONCE", 2)

    class InTurns(Comparison):
        def advance(self, most: int) -> None:
            for said in self.told.advance(self.wanted):
                if said is not None:
                    self.client.unanswered.append(said)
                    most -= 1
                if not most:
                    return

        def both(self, request: pb.DeltaDiscoveryRequest) -> None:
            self.told.receive(request)

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        InTurns, settings=settings(max_examples=EXAMPLES, stateful_step_count=40)
    )
