# SPDX-License-Identifier: Apache-2.0
"""In whatever order endpoints come and go, and however late an agent answers: it has no gap, and no rest.

What an Envoy sends requests to is on the node's map before it and after it; what an account does without a
pause keeps nothing of another's on the node. `EPIC_ADS_SEQUENCES=1000` plays more sequences.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest.mock import patch

from envoy.service.discovery.v3 import discovery_pb2 as pb
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from epic.ads.delta import unpaced
from epic.ads.delta.unpaced import UnpacedStream
from epic.ads.snapshot import ENDPOINT, LOAD_ASSIGNMENT, NODE_STATE, Versioned, versioned

EXAMPLES = int(os.environ.get("EPIC_ADS_SEQUENCES", "30"))
TYPES = (ENDPOINT, LOAD_ASSIGNMENT, NODE_STATE)
ACCOUNTS = ("a", "b", "c")

accounts = st.sampled_from(ACCOUNTS)
endpoints = st.sets(st.integers(1, 4), max_size=4)


class MovingPods(RuleBasedStateMachine):
    """Accounts, each with one cluster, whose endpoints it changes; and an agent."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = [patch.object(unpaced, "_MOST_AT_ONCE", 2)]
        for each in self.patches:
            each.start()
        self.stream = UnpacedStream()
        self.wanted: dict[str, dict[str, Versioned]] = {type_url: {} for type_url in TYPES}
        self.behind: dict[str, set[str]] = {account: set() for account in ACCOUNTS}
        self.states = 0
        self.changed: set[str] = set()
        """Endpoints that came or went since the node's state is as it is."""
        self.held: dict[str, dict[str, str]] = {type_url: {} for type_url in TYPES}
        self.unread: list[pb.DeltaDiscoveryResponse] = []
        self.unanswered: list[pb.DeltaDiscoveryResponse] = []
        self.running: Iterator[pb.DeltaDiscoveryResponse | None] | None = None
        for type_url in TYPES:
            self.stream.receive(pb.DeltaDiscoveryRequest(type_url=type_url))

    def teardown(self) -> None:
        for each in self.patches:
            each.stop()

    @rule(account=accounts, last=endpoints)
    def change(self, account: str, last: set[int]) -> None:
        now = {f"{account}/{number}" for number in last}
        changed = now ^ self.behind[account]
        self.behind[account] = now
        self.changed |= changed
        for name in changed:
            if name in now:
                self.wanted[ENDPOINT][name] = versioned(StringValue(value="1"))
            else:
                del self.wanted[ENDPOINT][name]
        self.wanted[LOAD_ASSIGNMENT][account] = versioned(StringValue(value=",".join(sorted(now))))
        self.stream.touch({ENDPOINT: changed, LOAD_ASSIGNMENT: {account}})

    @rule()
    def state(self) -> None:
        """The node is to report that it has all of now."""
        self.states += 1
        self.changed.clear()
        text = f"{self.states} {' '.join(sorted(self.wanted[ENDPOINT]))}"
        self.wanted[NODE_STATE]["node"] = versioned(StringValue(value=text))
        self.stream.touch({NODE_STATE: {"node"}})

    @rule(most=st.integers(1, 3))
    def advance(self, most: int) -> None:
        self.running = self.running or iter(self.stream.advance(self.wanted))
        for _ in range(most):
            response = next(self.running, None)
            if response is None:
                self.running = None
                return
            self.unread.append(response)

    @rule()
    def read(self) -> None:
        """The agent takes a response."""
        if not self.unread:
            return
        response = self.unread.pop(0)
        held = self.held[response.type_url]
        for resource in response.resources:
            held[resource.name] = StringValue.FromString(resource.resource.value).value
        for name in response.removed_resources:
            held.pop(name, None)
        self.unanswered.append(response)
        if response.type_url == NODE_STATE and response.resources:
            number, *named = held["node"].split()
            if number == str(self.states):
                assert self.held[ENDPOINT].keys() ^ set(named) <= self.changed, "it reports what is not so"

    @rule()
    def answer(self) -> None:
        if self.unanswered:
            response = self.unanswered.pop(0)
            self.stream.receive(
                pb.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
            )

    @rule(busy=accounts, pace=st.integers(1, 4))
    def never_pause(self, busy: str, pace: int) -> None:
        """One account changes with each response; what others are to have comes to be, the state too."""
        for number in range(150):
            if number % pace == 0 and not self.stream.is_behind:
                self.change(busy, {number % 4, (number + 1) % 4})
            earlier = len(self.unanswered)
            self.advance(3)
            while self.unread:
                self.read()
            for _ in range(earlier):
                self.answer()
        others = {name for name in self.wanted[ENDPOINT] if not name.startswith(busy)}
        assert {name for name in self.held[ENDPOINT] if not name.startswith(busy)} == others
        assert self.held[NODE_STATE].keys() == self.wanted[NODE_STATE].keys()
        assert self.held[NODE_STATE].get("node", "0").partition(" ")[0] == str(self.states)

    @invariant()
    def no_request_meets_an_endpoint_that_is_not_on_the_map(self) -> None:
        for cluster in self.held[LOAD_ASSIGNMENT].values():
            assert set(filter(None, cluster.split(","))) <= self.held[ENDPOINT].keys()


def test_an_agent_has_every_endpoint_while_requests_go_to_it_and_none_that_is_gone() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        MovingPods, settings=settings(max_examples=EXAMPLES, stateful_step_count=30)
    )
