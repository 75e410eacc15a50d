# SPDX-License-Identifier: Apache-2.0
"""What `epicctl status` makes of nodes, gateways and runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from epic.cli.printing.fields import age
from epic.cli.printing.health import gateway_line, judge

AWAKE = {"last-report": "2024-01-01T11:59:50Z"}
DRAINED = {"type": "Drained", "status": "True"}
HOLDS = {"type": "DropHeld", "status": "True", "message": "3 of 3 gateways"}
UNHEARD = {"type": "BGPEstablished", "status": "False", "message": "no router hears the node"}
SILENT = {"type": "Ready", "status": "False", "reason": "Silent"}
NOT_READY = {"type": "Ready", "status": "False", "message": "no room on its disk"}
NOW = datetime(2024, 1, 1, 12, 0, 0, tzinfo=UTC)


def _node(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "epic1"},
        "spec": {"address": "192.0.2.1", "schedulable": True},
        "status": status,
    }


def _gateway(
    announced: int, phases: tuple[str, str] = ("Serving", "Serving"), **conditions: str
) -> dict[str, Any]:
    return {
        "metadata": {"name": "U1", "namespace": "shop"},
        "spec": {"display-name": "web", "public-address": "203.0.113.1"},
        "status": {
            "instances": [
                {"node": f"epic{i}", "announced": i < announced, "phase": phases[i]} for i in range(2)
            ],
            "conditions": [{"type": t, "status": s, "message": f"{t} text"} for t, s in conditions.items()],
        },
    }


def _workload(silent: float, account: str = "shop") -> dict[str, Any]:
    return {"account": account, "cluster": "lab", "node": "linux1", "tunnels": 2, "silent": silent}


def test_workload_nodes_that_have_stopped_reporting_are_named() -> None:
    nodes = [_workload(5.0), _workload(44.0), _workload(400.0)]
    health = judge(None, [], None, workload_nodes=nodes)
    assert [(line.name, line.state) for line in health.silent] == [("shop: lab/linux1", "silent for 6m")]
    (problem,) = health.problems
    assert problem.startswith("shop: lab/linux1: it has not reported for 6m; see epic-agent.service there")
    assert "password" in problem


def test_a_gateway_that_leaves_routes_out_is_its_accounts_to_mend() -> None:
    gateway = _gateway(2, Ready="True")
    text = "2 routes are left out"
    left_out = {"type": "Accepted", "status": "True", "reason": "RoutesLeftOut", "message": text}
    gateway["status"]["conditions"].append(left_out)
    health = judge([_node(**AWAKE)], proxies=[gateway], runs=[], now=NOW)
    assert (health.problems, health.of_accounts) == ([], [f"shop/web: Accepted: {text}"])


def test_a_gateway_is_shown_with_all_its_addresses() -> None:
    gateway = _gateway(2, Ready="True")
    gateway["spec"]["alt-address"] = "2001:db8::1"
    assert gateway_line(gateway, NOW).details == "203.0.113.1, 2001:db8::1, U1"


ASKS_FOR_ANOTHER = {"type": "Programmed", "status": "False", "reason": "AddressNotUsable", "message": "no"}


def test_what_an_account_is_to_mend_is_shown_to_the_platform_and_is_no_problem_of_its() -> None:
    """Slices may name hosts without an agent for ever, and other accounts' operators can do nothing."""
    gateway = _gateway(2, Ready="True")
    gateway["status"]["conditions"].append(ASKS_FOR_ANOTHER)
    matters = {"proxies": [gateway], "runs": [], "workload_nodes": [_workload(400.0)]}
    health = judge([_node(**AWAKE)], **matters, now=NOW)
    assert health.problems == []
    assert [text.partition(": ")[0] for text in health.of_accounts] == ["shop/web", "shop"]
    broken = judge([_node()], **matters, now=NOW)
    assert [text.partition(": ")[0] for text in broken.problems] == ["epic1"]
    assert broken.of_accounts == health.of_accounts


@pytest.mark.parametrize(
    ("silent", "heard", "is_problem"),
    [
        (("shop", "bank"), (), True),
        (("shop", "bank", "school"), ("press",), True),
        (("shop",) * 9, ("press",), False),
        (("shop", "bank"), ("press", "school"), False),
        (("shop", "bank"), ("bank",), False),
        (("shop",), (), False),
    ],
)
def test_that_most_accounts_have_no_workload_node_that_is_heard_is_the_platforms_to_mend(
    silent: tuple[str, ...], heard: tuple[str, ...], is_problem: bool
) -> None:
    workloads = [_workload(400.0, account) for account in silent] + [
        _workload(4.0, account) for account in heard
    ]
    health = judge([_node(**AWAKE)], [], [], NOW, workload_nodes=workloads)
    assert [text.partition(":")[0] for text in health.problems] == ["workload nodes"] * is_problem
    assert len(health.of_accounts) == len(silent)
    alone = judge([_node(**AWAKE)], [], [], NOW, workload_nodes=workloads[:1], of_account=True)
    assert "workload nodes" not in str(alone.problems)


@pytest.mark.parametrize(("nodes", "of_account"), [(None, False), ([_node(**AWAKE)], True)])
def test_what_an_account_is_to_mend_is_a_problem_to_who_asks_for_it(nodes: Any, of_account: bool) -> None:
    health = judge(nodes, [], [], NOW, workload_nodes=[_workload(400.0)], of_account=of_account)
    assert [text.partition(": ")[0] for text in health.problems] == ["shop"]
    assert health.of_accounts == []


def test_listeners_that_are_not_served_are_for_their_account_to_mend() -> None:
    gateway = _gateway(2, Ready="True")
    told = {"reason": "ListenersNotValid", "message": "Listener 'secure' is not served: no"}
    gateway["status"]["conditions"].append({"type": "Accepted", "status": "True", **told})
    health = judge([_node(**AWAKE)], [gateway], [], NOW)
    assert health.problems == []
    assert health.of_accounts == ["shop/web: Accepted: Listener 'secure' is not served: no"]


def test_a_gateway_that_does_not_serve_is_the_platforms_whatever_else_it_asks_for() -> None:
    gateway = _gateway(0, Ready="False")
    gateway["status"]["conditions"].append(ASKS_FOR_ANOTHER)
    assert len(judge([_node(**AWAKE)], [gateway], [], NOW).problems) == 1


def _run(name: str, state: str, **results: str) -> dict[str, Any]:
    nodes = {n: {"state": s, "task": "Start", "message": "no room"} for n, s in results.items()}
    return {
        "metadata": {"name": name},
        "spec": {"nodes": list(results)},
        "status": {"state": state, "nodes": nodes},
    }


@pytest.mark.parametrize(
    ("nodes", "gateways", "runs", "problems"),
    [
        pytest.param(
            [_node(**{"last-report": "2024-01-01T11:59:50Z"})],
            [_gateway(2, Ready="True", Programmed="True")],
            [_run("1", "succeeded", epic1="changed")],
            [],
            id="well",
        ),
        pytest.param([_node()], [], [], ["epic1: its agent has never reported"], id="never-reported"),
        pytest.param(
            [_node(**{"last-report": "2024-01-01T11:50:00Z"}, conditions=[SILENT])],
            [],
            [],
            ["epic1: its agent is silent for 10m"],
            id="silent",
        ),
        pytest.param(
            [_node(**{"last-report": "2024-01-01T03:00:00Z"})], [], [], [], id="not-heard-since-a-restart"
        ),
        pytest.param(
            [_node(**AWAKE, phase="Draining", conditions=[DRAINED])], [], [], [], id="drained-on-purpose"
        ),
        pytest.param(
            [_node(**AWAKE, phase="Ready", conditions=[HOLDS, NOT_READY])],
            [],
            [],
            [
                "epic1: not Ready: no room on its disk; holds a drop: 3 of 3 gateways; "
                "if the drop is meant: epicctl node accept-drop epic1"
            ],
            id="not-ready-and-holds-a-drop",
        ),
        pytest.param(
            [_node(**AWAKE, phase="Ready", conditions=[UNHEARD])],
            [],
            [],
            ["epic1: not BGPEstablished: no router hears the node"],
            id="no-router-hears-it",
        ),
        pytest.param(
            [_node(**AWAKE, phase="Ready", conditions=[UNHEARD | {"status": "Unknown"}])],
            [],
            [],
            [],
            id="whether-routers-hear-it-is-not-known",
        ),
        pytest.param(
            [], [_gateway(1, phases=("Serving", "Withdrawn"), Ready="True")], [], [], id="half-drained"
        ),
        pytest.param([], [_gateway(0, Ready="False")], [], ["shop/web: Ready: Ready text"], id="not-ready"),
        pytest.param([], [_gateway(1, Ready="True")], [], ["shop/web: 1 of 2 instances serve"], id="half"),
        pytest.param(
            [],
            [],
            [_run("1", "failed", epic1="unreachable")],
            ["run 1: epic1 unreachable at task 'Start': no room"],
            id="run",
        ),
        pytest.param(
            [],
            [],
            [_run("2", "succeeded", epic1="changed"), _run("1", "failed", epic1="failed")],
            [],
            id="repaired-by-a-later-run",
        ),
    ],
)
def test_status(nodes: Any, gateways: Any, runs: Any, problems: list[str]) -> None:
    found = judge(nodes, gateways, runs, NOW).problems
    assert len(found) == len(problems)
    assert all(line.startswith(expected) for line, expected in zip(found, problems, strict=True)), found


def test_a_nodes_line_says_its_phase_and_what_runs_there() -> None:
    node = _node(**AWAKE, phase="Draining", instances={"Withdrawn": 2, "Draining": 1})
    (line,) = judge([node], [], [], NOW).nodes
    assert (line.state, line.details) == ("Draining", "192.0.2.1, agent -, 1 Draining, 2 Withdrawn, BGP -")


@pytest.mark.parametrize(("reason", "wrong"), [("SiblingsLate", True), ("NotOnAllNodes", False)])
def test_second_chance_that_nobody_switched_off_and_that_fails_is_a_problem(reason: str, wrong: bool) -> None:
    gateway = _gateway(2, Ready="True", Programmed="True")
    chance = {"type": "SecondChance", "status": "False", "reason": reason, "message": "1 of 2 instances"}
    gateway["status"]["conditions"].append(chance)
    expected = ["shop/web: SecondChance: 1 of 2 instances"] if wrong else []
    assert judge([], [gateway], [], NOW).problems == expected


def test_a_gateway_that_is_deleted_says_which_nodes_it_waits_for() -> None:
    gateway = _gateway(0, phases=("Draining", "Removed"), Ready="False")
    gateway["metadata"]["deletionTimestamp"] = "2024-01-01T11:59:20Z"
    (line,) = judge([], [gateway], [], NOW).gateways
    assert (line.name, line.state, line.problem) == ("shop/web", "being deleted for 40s", "")
    assert line.details == "U1, waits for epic0 Draining, epic1 Removed"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "-"),
        ("2024-01-01T11:59:30Z", "30s"),
        ("2024-01-01T11:50:00Z", "10m"),
        ("2024-01-01T01:00:00Z", "11h"),
        ("2023-12-01T12:00:00Z", "31d"),
        ("2024-01-01T12:00:05Z", "0s"),
    ],
)
def test_age(text: str | None, expected: str) -> None:
    assert age(text, NOW) == expected
