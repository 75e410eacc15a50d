# SPDX-License-Identifier: Apache-2.0
"""What is said of a node whose BGP sessions, and whose reports, come and go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

import pytest

from epic.heartbeats import Heard
from epic.lifecycle.digest import Placed
from epic.lifecycle.nodes import settled
from epic.model.instances import ProxyInstance
from epic.model.nodes import BGPSession, BGPStatus
from epic.model.resources import Node

TIME = datetime(2026, 1, 1, tzinfo=UTC)
REPORTS = Heard(TIME, timedelta(seconds=5))
DOWN = tuple(BGPSession(name=f"upstream_r{n}", address=f"192.0.2.{n}", since=TIME) for n in range(9))


def node(bgp: BGPStatus | None, *, drain: bool = False) -> Node:
    found = Node.model_validate(
        {"metadata": {"name": "e1"}, "spec": {"address": "192.0.2.1", "drain": drain}, "status": {}}
    )
    return found.model_copy(
        update={"status": found.status.model_copy(update={"bgp": bgp, "last_report": TIME})}
    )


def condition(found: Node, kind: str) -> tuple[str, str, str]:
    (one,) = [c for c in found.status.conditions if c.type == kind]
    return one.status, one.reason, one.message


@pytest.mark.parametrize(
    ("bgp", "unheard", "expected"),
    [
        (None, False, ("Unknown", "NotObserved", "its agent does not look at a BIRD")),
        (BGPStatus(), False, ("Unknown", "NoSessionConfigured", "its BIRD has no BGP session")),
        (
            BGPStatus(configured=2, established=2),
            False,
            ("True", "AllSessionsEstablished", "2 of 2 BGP sessions are established"),
        ),
        (
            BGPStatus(configured=2, established=1, down=DOWN[:1]),
            False,
            ("True", "SomeSessionsEstablished", "1 of 2 BGP sessions are established; down: upstream_r0"),
        ),
        (
            BGPStatus(configured=9, down=DOWN),
            True,
            (
                "False",
                "NoSessionEstablished",
                "no router hears the node: 0 of 9 BGP sessions are established",
            ),
        ),
        (BGPStatus(configured=2, failure="no answer"), True, ("False", "BIRDNotAnswering", "no answer")),
        (BGPStatus(failure="no answer"), True, ("False", "BIRDNotAnswering", "no answer")),
    ],
)
def test_whether_routers_hear_a_node(
    bgp: BGPStatus | None, unheard: bool, expected: tuple[str, str, str]
) -> None:
    found = settled(node(bgp), [], TIME, REPORTS)
    assert condition(found, "BGPEstablished") == expected
    assert found.status.unheard is unheard


@pytest.mark.parametrize("listed", [True, False])
def test_a_node_is_drained_when_no_sibling_passes_packets_on_to_it(listed: bool) -> None:
    """It may be switched off then."""
    parked = ProxyInstance(
        node="e1", inside_address=IPv4Address(1), since=TIME, phase="Withdrawn", reason="waits", listed=listed
    )
    found = settled(node(None, drain=True), [Placed("a.g", parked)], TIME, REPORTS)
    expected = ("False", "InstancesServe", "a.g: waits") if listed else ("True", "NoInstanceServes", "")
    assert condition(found, "Drained") == expected


def test_a_drain_that_waits_for_a_router_to_hear_another_node_says_so() -> None:
    waiting = ProxyInstance(
        node="e1",
        inside_address=IPv4Address(1),
        since=TIME,
        phase="Serving",
        reason="NoOtherHeard: no router has a BGP session with a node where another instance serves",
    )
    found = settled(
        node(BGPStatus(configured=1, established=1), drain=True), [Placed("a.g", waiting)], TIME, REPORTS
    )
    status, reason, message = condition(found, "Drained")
    assert (status, reason) == ("False", "NoOtherHeard")
    assert message.startswith("a.g: NoOtherHeard: no router has a BGP session")


def silent_for(seconds: float, last: datetime | None = TIME) -> Heard:
    return Heard(last, timedelta(seconds=seconds))


def test_a_node_that_does_not_report_is_silent_and_its_last_report_is_noted() -> None:
    later = TIME + timedelta(hours=3)
    found = settled(node(None), [], later, silent_for(39, later))
    assert condition(found, "Ready") == ("True", "Reporting", "")
    assert found.status.last_report == TIME, "reports that bring nothing new are in memory only"
    found = settled(found, [], later, silent_for(41, later))
    assert condition(found, "Ready") == ("False", "Silent", "its agent does not report")
    assert found.status.last_report == later
    assert condition(settled(found, [], later, silent_for(1, later)), "Ready")[0] == "True"


def test_when_the_control_plane_begins_anew_nodes_are_as_before_until_they_had_time_to_report() -> None:
    later = TIME + timedelta(days=3)
    well = settled(node(None), [], TIME, REPORTS)
    assert settled(well, [], later, silent_for(2, None)) == well
    assert condition(settled(well, [], later, silent_for(41, None)), "Ready")[1] == "Silent"
    silent = settled(well, [], later, silent_for(41))
    assert settled(silent, [], later, silent_for(2, None)) == silent, "nobody has heard of it"
    assert condition(settled(silent, [], later, silent_for(2, later)), "Ready")[0] == "True"


def test_a_node_that_never_reported_is_not_called_silent() -> None:
    new = Node.model_validate({"metadata": {"name": "e1"}, "spec": {"address": "192.0.2.1"}})
    assert condition(settled(new, [], TIME, silent_for(99, None)), "Ready")[1] == "NeverReported"


def test_a_drain_that_waits_for_a_stopped_agent_names_its_node() -> None:
    why = "WaitsForAgents: epic3: the agent there has not said that nothing is passed on to it any more"
    parked = ProxyInstance(
        node="e1", inside_address=IPv4Address(1), since=TIME, phase="Withdrawn", reason=why, listed=True
    )
    found = settled(node(None, drain=True), [Placed("a.g", parked)], TIME, REPORTS)
    assert condition(found, "Drained") == ("False", "WaitsForAgents", f"a.g: {why}")
