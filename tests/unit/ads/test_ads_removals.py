# SPDX-License-Identifier: Apache-2.0
"""What an agent is to let go of, and what it is to report then: beside others whose changes never pause."""

from __future__ import annotations

import pytest
from envoy.service.discovery.v3 import discovery_pb2 as pb
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import status_pb2

from epic.ads.delta import unpaced
from epic.ads.delta.unpaced import UnpacedStream
from epic.ads.snapshot import ENDPOINT, INSTANCE, LOAD_ASSIGNMENT, NODE_STATE, Versioned, versioned

TYPES = (INSTANCE, ENDPOINT, LOAD_ASSIGNMENT, NODE_STATE)


class Node:
    """A stream, its snapshot that is changed in place, and an agent that answers in order."""

    def __init__(self) -> None:
        self.stream = UnpacedStream()
        self.wanted: dict[str, dict[str, Versioned]] = {type_url: {} for type_url in TYPES}
        self.held: set[str] = set()
        self.unanswered: list[pb.DeltaDiscoveryResponse] = []
        for type_url in TYPES:
            self.stream.receive(pb.DeltaDiscoveryRequest(type_url=type_url))

    def put(self, type_url: str, name: str, value: str = "1") -> None:
        self.wanted[type_url][name] = versioned(StringValue(value=value))
        self.stream.touch({type_url: {name}})

    def remove(self, type_url: str, name: str) -> None:
        del self.wanted[type_url][name]
        self.stream.touch({type_url: {name}})

    def advance(self) -> list[tuple[str, list[str], list[str]]]:
        """What is sent now: types, what is new, what is to go."""
        sent = [response for response in self.stream.advance(self.wanted) if response is not None]
        self.unanswered += sent
        return [(r.type_url, [a.name for a in r.resources], list(r.removed_resources)) for r in sent]

    def answer(self, message: str = "") -> None:
        response = self.unanswered.pop(0)
        request = pb.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        if message:
            request.error_detail.CopyFrom(status_pb2.Status(code=3, message=message))
        else:
            self.held.update(resource.name for resource in response.resources)
            self.held.difference_update(response.removed_resources)
        self.stream.receive(request)

    def settle(self) -> None:
        while self.advance() or self.unanswered:
            while self.unanswered:
                self.answer()


@pytest.fixture
def node() -> Node:
    made = Node()
    made.put(INSTANCE, "quiet")
    for name in ("quiet/1", "quiet/2", "busy/0"):
        made.put(ENDPOINT, name)
    made.put(NODE_STATE, "node", "before")
    made.settle()
    assert made.held == {"quiet", "quiet/1", "quiet/2", "busy/0", "node"}
    return made


def change_without_a_pause(node: Node, times: int) -> list[tuple[str, list[str], list[str]]]:
    """One account's endpoint is another with each answer; something of it is always unanswered."""
    sent = []
    for number in range(1, times + 1):
        node.remove(ENDPOINT, f"busy/{number - 1}")
        node.put(ENDPOINT, f"busy/{number}")
        sent += node.advance()
        while len(node.unanswered) > 1:
            node.answer()
        assert node.unanswered
    return sent


def test_who_changes_without_a_pause_keeps_no_other_account_s_endpoint_on_the_node(node: Node) -> None:
    node.remove(ENDPOINT, "quiet/1")
    change_without_a_pause(node, 20)
    assert "quiet/1" not in node.held


def test_who_changes_without_a_pause_keeps_the_node_from_no_word_on_its_state(node: Node) -> None:
    node.remove(INSTANCE, "quiet")
    node.put(NODE_STATE, "node", "after")
    sent = change_without_a_pause(node, 20)
    assert sent.index((INSTANCE, [], ["quiet"])) < sent.index((NODE_STATE, ["node"], []))


def test_who_changes_without_a_pause_leaves_few_endpoints_behind(node: Node) -> None:
    change_without_a_pause(node, 100)
    assert len(node.held) < 10


def test_an_endpoint_goes_when_what_was_sent_before_it_was_to_go_is_answered(node: Node) -> None:
    node.put(LOAD_ASSIGNMENT, "quiet/s", "2 only")
    node.remove(ENDPOINT, "quiet/1")
    assert node.advance() == [(LOAD_ASSIGNMENT, ["quiet/s"], [])]
    node.put(LOAD_ASSIGNMENT, "busy/s")
    assert node.advance() == [(LOAD_ASSIGNMENT, ["busy/s"], [])]
    node.answer()
    assert node.advance() == [(ENDPOINT, [], ["quiet/1"])], "the other has come after it"


def test_an_endpoint_that_came_back_and_is_to_go_again_waits_for_what_changed_last(node: Node) -> None:
    node.put(LOAD_ASSIGNMENT, "quiet/s", "2 only")
    node.remove(ENDPOINT, "quiet/1")
    node.advance()
    node.put(ENDPOINT, "quiet/1")
    node.put(LOAD_ASSIGNMENT, "quiet/s", "1 and 2")
    assert node.advance() == [(LOAD_ASSIGNMENT, ["quiet/s"], [])], "it has never gone"
    node.put(LOAD_ASSIGNMENT, "quiet/s", "2 only, again")
    node.remove(ENDPOINT, "quiet/1")
    assert node.advance() == [(LOAD_ASSIGNMENT, ["quiet/s"], [])]
    node.answer()
    node.answer()
    assert node.advance() == [], "requests may still go to it"
    node.answer()
    assert node.advance() == [(ENDPOINT, [], ["quiet/1"])]


def test_the_state_of_the_node_waits_for_all_that_is_to_go_by_it_though_a_round_began_before(
    node: Node,
) -> None:
    node.put(ENDPOINT, "quiet/3")
    node.remove(ENDPOINT, "quiet/1")
    assert node.advance() == [(ENDPOINT, ["quiet/3"], [])]
    node.put(NODE_STATE, "node", "after")
    node.remove(INSTANCE, "quiet")
    assert node.advance() == []
    node.answer()
    assert node.advance() == [(ENDPOINT, [], ["quiet/1"])]
    node.answer()
    assert node.advance() == [(INSTANCE, [], ["quiet"]), (NODE_STATE, ["node"], [])]


def test_the_state_of_the_node_waits_for_what_the_agent_would_not_let_go_of(node: Node) -> None:
    node.remove(INSTANCE, "quiet")
    assert node.advance() == [(INSTANCE, [], ["quiet"])]
    node.answer("no")
    node.put(NODE_STATE, "node", "after")
    assert node.advance() == []
    node.stream.insist()
    assert node.advance() == [(INSTANCE, [], ["quiet"]), (NODE_STATE, ["node"], [])]


def test_a_stream_is_behind_until_additions_are_sent_and_while_many_removals_wait(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpaced, "_MOST_LEAVING", 1)
    assert not node.stream.is_behind
    node.put(ENDPOINT, "quiet/3")
    assert node.stream.is_behind
    node.advance()
    assert not node.stream.is_behind
    node.remove(ENDPOINT, "quiet/1")
    node.remove(ENDPOINT, "quiet/2")
    node.advance()
    assert node.stream.is_behind, "they wait for the answer to the addition"
    node.answer()
    node.advance()
    assert not node.stream.is_behind


def test_a_stream_is_not_behind_by_what_the_agent_would_not_let_go_of(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpaced, "_MOST_LEAVING", 0)
    node.remove(INSTANCE, "quiet")
    node.advance()
    node.answer("no")
    node.advance()
    assert not node.stream.is_behind


def test_a_stream_is_behind_while_the_agent_leaves_much_unanswered(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpaced, "_MOST_UNANSWERED", 1)
    for name in ("quiet/3", "quiet/4"):
        assert not node.stream.is_behind
        node.put(ENDPOINT, name)
        node.advance()
    assert node.stream.is_behind
    node.answer()
    assert not node.stream.is_behind


def test_what_an_agent_is_sent_at_a_time_takes_little_memory_should_it_not_read(node: Node) -> None:
    for number in range(10):
        node.put(ENDPOINT, f"quiet/large{number}", "x" * (200 << 10))
    node.advance()
    assert len(node.unanswered) > 1
    assert max(response.ByteSize() for response in node.unanswered) < 1 << 20
