# SPDX-License-Identifier: Apache-2.0
"""What reports, and their absence, do to the status of gateways and nodes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

import pytest

from epic.ads.reports import configured, drops, ends, heard, reported, second_chances, silent
from epic.errors import EpicError, Invalid, Unavailable
from epic.lifecycle.conditions import with_instances
from epic.live import End, SecondChance
from epic.model.base import Condition
from epic.model.instances import ProxyInstance
from epic.model.resources import GWProxy, Node
from epic.model.values.naming import GatewayId
from epic.proto.epic_pb2 import InstanceStatus, NodeReport, SecondChanceStatus, TunnelStatus
from epic.rotation import Holds


def proxy() -> GWProxy:
    found = GWProxy.model_validate({"metadata": {"name": "U1", "namespace": "root"}, "spec": {}})
    instances = tuple(
        ProxyInstance(node=f"epic{i}", inside_address=IPv4Address(f"100.64.0.{i}")) for i in (1, 2)
    )
    return found.model_copy(update={"status": found.status.model_copy(update={"instances": instances})})


def serving(proxy: GWProxy, *nodes: str) -> GWProxy:
    state = {"root.U1": InstanceStatus(gateway="root.U1", ready=True, announced=True, serving_revision="r")}
    for node in nodes:
        proxy = reported(proxy, node, state)
    return proxy


def condition(proxy: GWProxy, kind: str) -> tuple[str, str, str]:
    (found,) = (c for c in proxy.status.conditions if c.type == kind)
    return found.status, found.reason, found.message


def test_a_gateway_is_ready_when_any_instance_is_announced() -> None:
    assert condition(serving(proxy(), "epic1"), "Ready") == (
        "True",
        "SomeInstancesServe",
        "1 of 2 instances serve.",
    )
    assert condition(serving(proxy(), "epic1", "epic2"), "Ready")[:2] == ("True", "AllInstancesServe")


def test_an_instance_that_the_node_does_not_mention_does_not_serve() -> None:
    found = reported(serving(proxy(), "epic1"), "epic1", {})
    assert condition(found, "Ready") == ("False", "NoInstanceServes", "0 of 2 instances serve.")


def test_a_node_that_is_silent_serves_nothing() -> None:
    found = silent(serving(proxy(), "epic1", "epic2"), "epic2")
    message = "1 of 2 instances serve; a node does not report."
    assert condition(found, "Ready") == ("True", "SomeInstancesServe", message)
    assert found.status.instances[1].error == "NodeSilent: the node does not report"


def test_an_agents_words_are_kept_with_a_reason_and_stay_out_of_the_condition() -> None:
    said = {"root.U1": InstanceStatus(gateway="root.U1", error="/run/epic: no such file")}
    found = reported(serving(proxy(), "epic1"), "epic2", said)
    assert found.status.instances[1].error == "ConfigurationRefused: /run/epic: no such file"
    message = "an Envoy refused the configuration; the platform's operators can see why"
    assert condition(found, "Ready")[2] == f"1 of 2 instances serve; {message}."


def test_a_node_that_cannot_set_tunnels_says_so_before_what_an_envoy_refuses() -> None:
    state = InstanceStatus(gateway="root.U1", error="refused", kernel_error="no room for more than 4 tunnels")
    found = reported(serving(proxy(), "epic1"), "epic2", {"root.U1": state})
    assert found.status.instances[1].error == "NotProgrammed: no room for more than 4 tunnels"
    message = "a node cannot set up all of its tunnels; the platform's operators can see why"
    assert condition(found, "Ready")[2] == f"1 of 2 instances serve; {message}."


def test_an_instance_that_serves_at_one_address_only_counts_and_says_so() -> None:
    state = InstanceStatus(
        gateway="root.U1", ready=True, announced=True, address_error="the kernel forwards no IPv6"
    )
    found = reported(serving(proxy(), "epic1"), "epic2", {"root.U1": state})
    assert found.status.instances[1].error == "AddressNotAnnounced: the kernel forwards no IPv6"
    message = "a node serves one of two addresses only; the platform's operators can see why"
    assert condition(found, "Ready") == ("True", "AllInstancesServe", f"2 of 2 instances serve; {message}.")
    state.error = "refused"
    found = reported(found, "epic2", {"root.U1": state})
    assert found.status.instances[1].error == "ConfigurationRefused: refused"


def test_a_gateway_with_an_instance_that_no_node_has_room_for_does_not_serve_with_all() -> None:
    before = proxy()
    before = with_instances(before, before.status.instances, unplaced=1)
    found = serving(before, "epic1", "epic2")
    assert condition(found, "Ready") == ("True", "SomeInstancesServe", "2 of 3 instances serve.")
    message = "the platform has no room for one more instance now; its operators can see why"
    assert condition(found, "Placed") == ("False", "NoRoom", message)
    found = with_instances(found, found.status.instances, unplaced=0)
    assert condition(found, "Ready")[1] == "AllInstancesServe"
    assert condition(found, "Placed") == ("True", "Placed", "")


def test_the_same_again_changes_nothing() -> None:
    once = configured(serving(proxy(), "epic1", "epic2"), "r", None)
    assert configured(serving(once, "epic1", "epic2"), "r", None) == once


@pytest.mark.parametrize(
    ("problem", "outcome"),
    [
        (None, ("True", "Accepted", "")),
        (Invalid("bad"), ("False", "InvalidConfiguration", "bad")),
        (Unavailable("no Envoy"), ("False", "NotValidated", "no Envoy")),
    ],
)
def test_a_refused_configuration_is_told(problem: EpicError | None, outcome: tuple[str, str, str]) -> None:
    found = configured(proxy(), "r1", problem)
    assert found.status.revision == "r1"
    assert condition(found, "Accepted") == outcome


def test_what_is_left_out_is_told_unless_all_is_refused() -> None:
    assert condition(configured(proxy(), "r1", None, 2), "Accepted")[:2] == ("True", "RoutesLeftOut")
    refused = configured(proxy(), "r1", Invalid("bad"), 2)
    assert condition(refused, "Accepted") == ("False", "InvalidConfiguration", "bad")
    assert condition(configured(refused, "r1", None, 0), "Accepted") == ("True", "Accepted", "")


def test_a_report_that_says_nothing_new_is_not_noted() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    node = Node.model_validate({"metadata": {"name": "epic1"}, "spec": {"address": "192.0.2.1"}})
    report = NodeReport(node="epic1", agent_version="1")
    first = heard(node, report, start)
    assert first.status.last_report == start
    later = start + timedelta(days=9)
    assert heard(first, report, later) is first
    news = heard(first, NodeReport(node="epic1", agent_version="2"), later)
    assert (news.status.agent_version, news.status.last_report) == ("2", later)


def test_the_first_report_of_a_node_that_was_silent_is_noted() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    node = Node.model_validate({"metadata": {"name": "epic1"}, "spec": {"address": "192.0.2.1"}})
    report = NodeReport(node="epic1", agent_version="1")
    silence = Condition(type="Ready", status="False", reason="Silent")
    first = heard(node, report, start)
    gone = first.model_copy(update={"status": first.status.model_copy(update={"conditions": (silence,)})})
    again = heard(gone, report, start + timedelta(seconds=60))
    assert again.status.last_report == start + timedelta(seconds=60)
    # Until it is called Ready again, which is the work of others, there is nothing more to note.
    assert heard(again, report, start + timedelta(seconds=65)) is again


def test_what_a_node_says_of_itself_is_noted_at_once() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    node = Node.model_validate({"metadata": {"name": "epic1"}, "spec": {"address": "192.0.2.1"}})
    first = heard(node, NodeReport(node="epic1"), start)
    report = NodeReport(
        node="epic1", agent_version="2", applied_digest="d", held_gateways=["a.g"], problems=["nft is slow"]
    )
    status = heard(first, report, start + timedelta(seconds=1)).status
    assert (status.agent_version, status.applied_digest) == ("2", "d")
    assert (status.held_gateways, status.problems) == (("a.g",), ("nft is slow",))


def test_what_a_node_says_of_its_sessions_is_noted_when_it_is_something_else() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    node = Node.model_validate({"metadata": {"name": "epic1"}, "spec": {"address": "192.0.2.1"}})
    report = NodeReport(node="epic1")
    report.bgp.configured = 2
    report.bgp.down.add(name="r1", address="192.0.2.9", since=1767225600, error="Socket: No route to host")
    report.bgp.down.add(name="r2", since=1 << 62)
    first = heard(node, report, start)
    assert first.status.bgp is not None and first.status.unheard
    (one, two) = first.status.bgp.down
    assert (one.name, one.address, one.since) == ("r1", "192.0.2.9", start)
    assert two.since is not None and two.since > start
    assert heard(first, report, start + timedelta(seconds=1)) is first
    report.bgp.established = 1
    assert not heard(first, report, start + timedelta(seconds=1)).status.unheard
    assert heard(first, NodeReport(node="epic1"), start + timedelta(seconds=1)).status.bgp is None


def test_a_report_tells_of_the_epic_ends_of_tunnels() -> None:
    said = TunnelStatus(id=7, observed_address="198.51.100.7", observed_port=40000, hello_age=2, rx_bytes=5)
    said.epochs.extend([1, 2])
    said.signing_epoch = 1
    found = ends(NodeReport(node="epic1", tunnels=[said, TunnelStatus(id=8, hello_age=-1)]))
    assert found == {
        7: End(Holds(frozenset({1, 2}), 1), rx_bytes=5, hello_age=2, observed=("198.51.100.7", 40000)),
        8: End(),
    }


def test_a_report_tells_what_became_of_gateways_packets() -> None:
    said = SecondChanceStatus(gateway="root.U1", hits=1, passed_on=2, learned=3, chain_ends=4, over_budget=5)
    report = NodeReport(second_chances=[said])
    assert second_chances(report, [GatewayId("root", "U1")]) == {"root.U1": SecondChance(1, 2, 3, 4, 5)}
    assert second_chances(report, [GatewayId("root", "U2")]) == {}, "the node has no instance of it"


def test_of_what_a_node_drops_so_many_reasons_are_kept() -> None:
    report = NodeReport(drops={f"{n}" + "x" * 1000: n for n in range(1000)})
    kept = drops(report)
    assert len(kept) == 200
    assert max(map(len, kept)) == 100
    assert drops(NodeReport(drops={"tag": 3})) == {"tag": 3}


def test_what_a_node_says_has_a_length() -> None:
    long = "x" * 1_000_000
    said = {"root.U1": InstanceStatus(gateway="root.U1", serving_revision=long, error=long)}
    assert len(reported(proxy(), "epic1", said).model_dump_json()) < 20_000
    report = NodeReport(
        agent_version=long, applied_digest=long, held_gateways=[long] * 3, problems=[long] * 99
    )
    report.bgp.failure = long
    for _ in range(999):
        report.bgp.down.add(name=long, address=long, error=long)
    node = Node.model_validate({"metadata": {"name": "epic1"}, "spec": {"address": "192.0.2.1"}})
    assert len(heard(node, report, datetime.now(UTC)).model_dump_json()) < 20_000
