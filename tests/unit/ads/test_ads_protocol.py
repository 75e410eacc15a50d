# SPDX-License-Identifier: Apache-2.0
"""The state machine of a delta-ADS stream: subscriptions, versions, answers, order across types."""

from __future__ import annotations

from envoy.service.discovery.v3 import discovery_pb2 as pb
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import status_pb2

from epic.ads.delta.protocol import Acked, PacedStream, Refused, Stream
from epic.ads.delta.unpaced import UnpacedStream
from epic.ads.snapshot import (
    CLUSTER,
    ENDPOINT,
    INSTANCE,
    LISTENER,
    LOAD_ASSIGNMENT,
    NODE_STATE,
    ROUTE_CONFIGURATION,
    Resources,
    Snapshot,
    versioned,
)


def snapshot(**types: dict[str, str]) -> Snapshot:
    urls = {
        "cds": CLUSTER,
        "eds": LOAD_ASSIGNMENT,
        "lds": LISTENER,
        "rds": ROUTE_CONFIGURATION,
        "map": ENDPOINT,
    }
    return {
        urls[t]: {n: versioned(StringValue(value=v)) for n, v in resources.items()}
        for t, resources in types.items()
    }


def subscribe(type_url: str, *names: str, held: dict[str, str] | None = None) -> pb.DeltaDiscoveryRequest:
    return pb.DeltaDiscoveryRequest(
        type_url=type_url, resource_names_subscribe=names, initial_resource_versions=held or {}
    )


def ack(response: pb.DeltaDiscoveryResponse) -> pb.DeltaDiscoveryRequest:
    return pb.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)


def nack(response: pb.DeltaDiscoveryResponse, message: str = "no") -> pb.DeltaDiscoveryRequest:
    request = ack(response)
    request.error_detail.CopyFrom(status_pb2.Status(code=3, message=message))
    return request


def brief(response: pb.DeltaDiscoveryResponse) -> tuple[str, list[str], list[str]]:
    return response.type_url, [r.name for r in response.resources], list(response.removed_resources)


def sent(stream: Stream, wanted: Snapshot) -> list[pb.DeltaDiscoveryResponse]:
    return [response for response in stream.advance(wanted) if response is not None]


def settle(stream: Stream, wanted: Snapshot) -> list[tuple[str, list[str], list[str]]]:
    """Acknowledge everything until nothing is left to send."""
    log = []
    while responses := sent(stream, wanted):
        log += [brief(response) for response in responses]
        for response in responses:
            stream.receive(ack(response))
    return log


def test_a_wildcard_subscription_gets_everything_then_only_changes() -> None:
    stream = PacedStream()
    stream.receive(subscribe(CLUSTER))
    assert settle(stream, snapshot(cds={"a": "1", "b": "1"})) == [(CLUSTER, ["a", "b"], [])]
    assert settle(stream, snapshot(cds={"a": "1", "b": "2"})) == [(CLUSTER, ["b"], [])]
    assert settle(stream, snapshot(cds={"b": "2"})) == [(CLUSTER, [], ["a"])]
    assert settle(stream, snapshot(cds={"b": "2"})) == []


def test_what_was_removed_stays_with_the_client_until_it_has_answered() -> None:
    stream = PacedStream()
    assert stream.may_have(CLUSTER, "a"), "it has not said yet what it has"
    stream.receive(subscribe(CLUSTER, held={"a": "old"}))
    assert stream.may_have(CLUSTER, "a")
    assert not stream.may_have(CLUSTER, "b")
    (greeting,) = stream.advance(snapshot(cds={}))
    stream.receive(ack(greeting))
    (removal,) = stream.advance(snapshot(cds={}))
    assert stream.may_have(CLUSTER, "a")
    stream.receive(ack(removal))
    assert not stream.may_have(CLUSTER, "a")
    (addition,) = stream.advance(snapshot(cds={"b": "1"}))
    assert stream.may_have(CLUSTER, "b")
    stream.receive(nack(addition))
    assert not stream.may_have(CLUSTER, "b")


def test_what_is_sent_is_remembered_until_it_is_answered_well_or_not() -> None:
    for answer in (ack, nack):
        stream = PacedStream()
        stream.receive(subscribe(CLUSTER))
        before = stream.remembered
        (addition,) = stream.advance(snapshot(cds={"a": "1", "b": "2"}))
        unanswered = stream.remembered
        assert unanswered > before
        stream.receive(pb.DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce="another"))
        assert stream.remembered == unanswered
        stream.receive(answer(addition))
        assert stream.remembered == before


def test_a_wildcard_subscription_to_nothing_is_answered_once() -> None:
    stream = PacedStream()
    stream.receive(subscribe(LISTENER))
    assert settle(stream, {}) == [(LISTENER, [], [])]
    assert settle(stream, {}) == []


def test_an_explicit_star_is_a_wildcard() -> None:
    stream = PacedStream()
    stream.receive(subscribe(CLUSTER, "*"))
    assert settle(stream, snapshot(cds={"a": "1"})) == [(CLUSTER, ["a"], [])]


def test_a_subscription_by_name_gets_only_its_names() -> None:
    stream = PacedStream()
    stream.receive(subscribe(LOAD_ASSIGNMENT, "a"))
    assert settle(stream, snapshot(eds={"a": "1", "b": "1"})) == [(LOAD_ASSIGNMENT, ["a"], [])]
    stream.receive(subscribe(LOAD_ASSIGNMENT, "b"))
    assert settle(stream, snapshot(eds={"a": "1", "b": "1"})) == [(LOAD_ASSIGNMENT, ["b"], [])]


def test_a_name_that_does_not_exist_is_answered_as_removed_and_sent_when_it_appears() -> None:
    stream = PacedStream()
    stream.receive(subscribe(ROUTE_CONFIGURATION, "r"))
    assert settle(stream, {}) == [(ROUTE_CONFIGURATION, [], ["r"])]
    assert settle(stream, {}) == []
    assert settle(stream, snapshot(rds={"r": "1"})) == [(ROUTE_CONFIGURATION, ["r"], [])]


def test_a_name_subscribed_again_is_sent_again() -> None:
    stream = PacedStream()
    wanted = snapshot(eds={"a": "1"})
    stream.receive(subscribe(LOAD_ASSIGNMENT, "a"))
    settle(stream, wanted)
    stream.receive(subscribe(LOAD_ASSIGNMENT, "a"))
    assert settle(stream, wanted) == [(LOAD_ASSIGNMENT, ["a"], [])]


def test_an_unsubscribed_name_is_sent_no_more() -> None:
    stream = PacedStream()
    stream.receive(subscribe(LOAD_ASSIGNMENT, "a", "b"))
    settle(stream, snapshot(eds={"a": "1", "b": "1"}))
    stream.receive(pb.DeltaDiscoveryRequest(type_url=LOAD_ASSIGNMENT, resource_names_unsubscribe=["a"]))
    assert settle(stream, snapshot(eds={"a": "2", "b": "1"})) == []


def test_a_reconnecting_client_gets_only_what_it_lacks() -> None:
    old, new = snapshot(cds={"a": "1", "b": "1", "gone": "1"}), snapshot(cds={"a": "1", "b": "2"})
    stream = PacedStream()
    stream.receive(subscribe(CLUSTER, held={n: r.version for n, r in old[CLUSTER].items()}))
    assert settle(stream, new) == [(CLUSTER, ["b"], []), (CLUSTER, [], ["gone"])]


def test_a_reconnecting_client_with_names_is_not_sent_what_it_has() -> None:
    wanted = snapshot(eds={"a": "1"})
    stream = PacedStream()
    stream.receive(subscribe(LOAD_ASSIGNMENT, "a", held={"a": wanted[LOAD_ASSIGNMENT]["a"].version}))
    assert settle(stream, wanted) == []


def test_an_ack_tells_what_the_client_holds() -> None:
    wanted = snapshot(cds={"a": "1"})
    stream = PacedStream()
    stream.receive(subscribe(CLUSTER))
    (response,) = stream.advance(wanted)
    assert stream.receive(ack(response)) == Acked(CLUSTER, {"a": wanted[CLUSTER]["a"].version})


def test_an_answer_with_a_foreign_nonce_means_nothing() -> None:
    stream = PacedStream()
    stream.receive(subscribe(CLUSTER))
    (response,) = stream.advance(snapshot(cds={"a": "1"}))
    assert stream.receive(pb.DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce="77")) is None
    assert isinstance(stream.receive(ack(response)), Acked)


def test_a_refused_resource_is_sent_again_only_when_it_changes() -> None:
    stream = PacedStream()
    stream.receive(subscribe(CLUSTER))
    (response,) = stream.advance(snapshot(cds={"a": "bad"}))
    assert stream.receive(nack(response, "what is this")) == Refused(CLUSTER, "what is this", ("a",))
    assert stream.advance(snapshot(cds={"a": "bad"})) == []
    assert settle(stream, snapshot(cds={"a": "good"})) == [(CLUSTER, ["a"], [])]


def test_of_a_refused_response_the_innocent_resources_get_through() -> None:
    wanted = snapshot(cds={"a": "1", "bad": "1", "c": "1"})
    stream = PacedStream()
    stream.receive(subscribe(CLUSTER))
    held: dict[str, str] = {}
    while responses := stream.advance(wanted):
        for response in responses:
            refuse = any(r.name == "bad" for r in response.resources)
            outcome = stream.receive(nack(response) if refuse else ack(response))
            held = dict(outcome.held) if isinstance(outcome, Acked) else held
    assert held.keys() == {"a", "c"}


def test_a_refused_removal_is_asked_for_again_with_the_next_snapshot() -> None:
    stream = PacedStream()
    stream.receive(subscribe(CLUSTER))
    settle(stream, snapshot(cds={"a": "1", "gone": "1"}))
    wanted = snapshot(cds={"a": "1"})
    (response,) = stream.advance(wanted)
    assert brief(response) == (CLUSTER, [], ["gone"])
    stream.receive(nack(response))
    assert stream.advance(wanted) == [], "not in a loop"
    assert settle(stream, snapshot(cds={"a": "1"})) == [(CLUSTER, [], ["gone"])]
    assert settle(stream, snapshot(cds={"a": "1"})) == []


def test_of_a_refused_removal_the_innocent_resources_go() -> None:
    stream = PacedStream()
    stream.receive(subscribe(CLUSTER))
    settle(stream, snapshot(cds={"a": "1", "b": "1", "stuck": "1"}))
    wanted = snapshot(cds={})
    held: dict[str, str] = {}
    while responses := stream.advance(wanted):
        for response in responses:
            outcome = stream.receive(
                nack(response) if "stuck" in response.removed_resources else ack(response)
            )
            held = dict(outcome.held) if isinstance(outcome, Acked) else held
    assert held.keys() == {"stuck"}


def test_a_resource_that_was_kept_and_comes_back_is_sent_when_it_differs() -> None:
    stream = PacedStream()
    stream.receive(subscribe(CLUSTER))
    settle(stream, snapshot(cds={"a": "1"}))
    (response,) = stream.advance({})
    stream.receive(nack(response))
    assert settle(stream, snapshot(cds={"a": "1"})) == [], "the client has kept it"
    assert settle(stream, snapshot(cds={"a": "2"})) == [(CLUSTER, ["a"], [])]
    assert settle(stream, snapshot(cds={})) == [(CLUSTER, [], ["a"])]


def all_types(stream: Stream | None = None) -> Stream:
    stream = stream or PacedStream()
    for type_url in (ROUTE_CONFIGURATION, LISTENER, LOAD_ASSIGNMENT, CLUSTER, ENDPOINT):
        stream.receive(subscribe(type_url))
    return stream


def test_additions_go_in_order_of_types_each_after_the_answers_to_those_before() -> None:
    stream = all_types()
    wanted = snapshot(rds={"r": "1"}, lds={"l": "1"}, eds={"c": "1"}, cds={"c": "1"}, map={"e": "1"})
    order = []
    while responses := stream.advance(wanted):
        order.append([response.type_url for response in responses])
        for response in responses:
            stream.receive(ack(response))
    assert order == [[ENDPOINT], [CLUSTER, LOAD_ASSIGNMENT], [LISTENER], [ROUTE_CONFIGURATION]]


def test_a_stream_that_is_not_paced_has_all_additions_at_once() -> None:
    wanted = snapshot(rds={"r": "1"}, lds={"l": "1"}, eds={"c": "1"}, cds={"c": "1"}, map={"e": "1"})
    order = [response.type_url for response in sent(all_types(UnpacedStream()), wanted)]
    assert order == [ENDPOINT, CLUSTER, LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION]


def test_a_route_waits_until_its_cluster_is_answered_for_but_endpoints_do_not() -> None:
    stream = all_types()
    settle(stream, snapshot(cds={"c": "1"}, eds={"c": "1"}, rds={"r": "c"}))
    wanted = snapshot(cds={"c": "1", "d": "1"}, eds={"c": "2", "d": "1"}, rds={"r": "d"})
    cluster, endpoints = stream.advance(wanted)
    assert brief(endpoints) == (LOAD_ASSIGNMENT, ["c", "d"], [])
    stream.receive(ack(endpoints))
    assert stream.advance(wanted) == []
    stream.receive(ack(cluster))
    assert [brief(r) for r in stream.advance(wanted)] == [(ROUTE_CONFIGURATION, ["r"], [])]


def test_a_stream_of_changes_does_not_keep_the_routes_waiting() -> None:
    stream = all_types()
    settle(stream, snapshot(cds={"a": "0"}, rds={"r": "0"}))
    routes = 0
    outstanding: list[pb.DeltaDiscoveryResponse] = []
    for turn in range(1, 30):
        outstanding += stream.advance(snapshot(cds={"a": str(turn)}, rds={"r": str(turn)}))
        routes += sum(response.type_url == ROUTE_CONFIGURATION for response in outstanding)
        if turn % 3 == 0:
            for response in outstanding:
                stream.receive(ack(response))
            outstanding = []
    assert routes >= 4


def test_endpoints_are_the_newest_even_while_a_cluster_is_awaited() -> None:
    stream = all_types()
    settle(stream, snapshot(cds={"c": "1"}, eds={"c": "1"}))
    stream.advance(snapshot(cds={"c": "2"}, eds={"c": "1"}, rds={"r": "1"}))
    (response,) = stream.advance(snapshot(cds={"c": "3"}, eds={"c": "2"}, rds={"r": "1"}))
    assert brief(response) == (LOAD_ASSIGNMENT, ["c"], [])


def test_a_cluster_on_its_way_has_its_endpoints_though_it_is_gone_by_now() -> None:
    stream = PacedStream()
    for type_url in (CLUSTER, ROUTE_CONFIGURATION):
        stream.receive(subscribe(type_url))
    passing = snapshot(cds={"c": "1"}, eds={"c": "1"}, rds={"r": "to c"})
    (cluster,) = stream.advance(passing)
    newest = snapshot(cds={}, eds={}, rds={"r": "to nothing"})
    # Without endpoints the cluster would be warm and empty, and the route that follows would lead to it.
    stream.receive(subscribe(LOAD_ASSIGNMENT, "c"))
    (endpoints,) = stream.advance(newest)
    assert brief(endpoints) == (LOAD_ASSIGNMENT, ["c"], [])
    stream.receive(ack(cluster))
    stream.receive(ack(endpoints))
    assert settle(stream, newest) == [
        (ROUTE_CONFIGURATION, ["r"], []),
        (ROUTE_CONFIGURATION, ["r"], []),
        (LOAD_ASSIGNMENT, [], ["c"]),
        (CLUSTER, [], ["c"]),
    ]


def test_removals_wait_until_everything_else_is_answered() -> None:
    stream = all_types()
    settle(stream, snapshot(cds={"c": "1"}, rds={"r": "c"}))
    wanted = snapshot(cds={"d": "1"}, rds={"r": "d"})
    (cluster,) = stream.advance(wanted)
    stream.receive(ack(cluster))
    (route,) = stream.advance(wanted)
    assert brief(route) == (ROUTE_CONFIGURATION, ["r"], [])
    assert stream.advance(wanted) == []
    stream.receive(ack(route))
    assert [brief(r) for r in stream.advance(wanted)] == [(CLUSTER, [], ["c"])]


def test_removals_come_after_all_changes_in_the_opposite_order() -> None:
    stream = PacedStream()
    for type_url in (ENDPOINT, CLUSTER, LOAD_ASSIGNMENT, ROUTE_CONFIGURATION):
        stream.receive(subscribe(type_url))
    settle(stream, snapshot(map={"e": "1", "f": "1"}, cds={"c": "1"}, eds={"c": "e,f"}, rds={"r": "c"}))
    assert settle(stream, snapshot(map={"f": "1"}, cds={"d": "1"}, eds={"d": "f"}, rds={"r": "d"})) == [
        (CLUSTER, ["d"], []),
        (LOAD_ASSIGNMENT, ["d"], []),
        (ROUTE_CONFIGURATION, ["r"], []),
        (LOAD_ASSIGNMENT, [], ["c"]),
        (CLUSTER, [], ["c"]),
        (ENDPOINT, [], ["e"]),
    ]


def test_what_changes_while_a_response_is_under_way_follows_it() -> None:
    stream = PacedStream()
    stream.receive(subscribe(CLUSTER))
    (first,) = stream.advance(snapshot(cds={"a": "1"}))
    newest = snapshot(cds={"a": "2"})
    (second,) = stream.advance(newest)
    stream.receive(nack(first))
    assert stream.receive(ack(second)) == Acked(CLUSTER, {"a": newest[CLUSTER]["a"].version})
    assert stream.advance(newest) == []


def test_a_changed_cluster_brings_its_endpoints_again_to_who_names_them() -> None:
    stream = PacedStream()
    stream.receive(subscribe(CLUSTER))
    stream.receive(subscribe(LOAD_ASSIGNMENT, "a", "b"))
    settle(stream, snapshot(cds={"a": "1", "b": "1"}, eds={"a": "1", "b": "1"}))
    changed = settle(stream, snapshot(cds={"a": "2", "b": "1"}, eds={"a": "1", "b": "1"}))
    assert changed == [(CLUSTER, ["a"], []), (LOAD_ASSIGNMENT, ["a"], [])]


def test_a_large_state_is_split_over_responses() -> None:
    stream = PacedStream()
    stream.receive(subscribe(CLUSTER))
    log = settle(stream, snapshot(cds={f"c{i}": "x" * (1 << 20) for i in range(8)}))
    assert [len(names) for _, names, _ in log] == [3, 3, 2]


def test_the_state_of_the_node_comes_after_everything_removals_included() -> None:
    stream = UnpacedStream()
    for type_url in (INSTANCE, ENDPOINT, NODE_STATE):
        stream.receive(subscribe(type_url))
    first = {INSTANCE: {"g": versioned(StringValue(value="1"))}, ENDPOINT: {}, NODE_STATE: node_state("1")}
    assert [entry[0] for entry in settle(stream, first)][-1] == NODE_STATE
    then = {INSTANCE: {"h": versioned(StringValue(value="1"))}, ENDPOINT: {}, NODE_STATE: node_state("2")}
    assert settle(stream, then) == [(INSTANCE, ["h"], []), (INSTANCE, [], ["g"]), (NODE_STATE, ["node"], [])]


def test_the_state_of_the_node_waits_for_removals_that_wait_for_answers() -> None:
    stream = UnpacedStream()
    for type_url in (INSTANCE, NODE_STATE):
        stream.receive(subscribe(type_url))
    settle(stream, {INSTANCE: {"g": versioned(StringValue(value="1"))}, NODE_STATE: node_state("1")})
    then = {INSTANCE: {"h": versioned(StringValue(value="1"))}, NODE_STATE: node_state("2")}
    added = sent(stream, then)
    assert [brief(response) for response in added] == [(INSTANCE, ["h"], [])]
    assert sent(stream, then) == []
    stream.receive(ack(added[0]))
    assert [brief(response) for response in sent(stream, then)] == [
        (INSTANCE, [], ["g"]),
        (NODE_STATE, ["node"], []),
    ]


def node_state(text: str) -> Resources:
    return {"node": versioned(StringValue(value=text))}
