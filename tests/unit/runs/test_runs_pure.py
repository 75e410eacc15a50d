# SPDX-License-Identifier: Apache-2.0
"""Inventory, results of Ansible's events, and what they mean to gateways."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest

from epic.ipam.networks import DEFAULT_POOLS
from epic.lifecycle.runs import waits_for
from epic.model.resources import GWProxy, LBServiceGroup, Node
from epic.model.runs import NodeResult, Run
from epic.model.values.naming import GatewayId
from epic.runs.evidence import noted
from epic.runs.inventory import NodePlan, Unreadable, inventory, plan_nodes
from epic.runs.records import backoff
from epic.runs.results import NodeOutcome, ends_node, node_results, outcome, reader_event
from epic.runs.settings import RunSettings

POOL6 = DEFAULT_POOLS.inside6
SETTINGS = RunSettings(
    directory=Path("/r"),
    playbook=Path("/p.yml"),
    collections=Path("/c"),
    ssh_key=Path("/k/id"),
    envoy_version="1.40.0",
)


def node(name: str, **spec: Any) -> Node:
    return Node.model_validate({"metadata": {"name": name}, "spec": {"address": "192.0.2.1", **spec}})


def proxy(*nodes: str, group: str = "g", name: str = "U1", **instance: Any) -> GWProxy:
    instances = [{"node": n, "inside-address": f"100.64.0.{i}", **instance} for i, n in enumerate(nodes, 1)]
    return GWProxy.model_validate(
        {
            "metadata": {"name": name, "namespace": "root"},
            "spec": {"public-address": "203.0.113.1", "group": group},
            "status": {"instances": instances, "service": 3},
        }
    )


def group(version: str) -> LBServiceGroup:
    return LBServiceGroup.model_validate(
        {
            "metadata": {"name": "g", "namespace": "root"},
            "spec": {"service-prefix": "p", "envoy-version": version},
        }
    )


def test_inventory_lists_all_instances_of_each_node() -> None:
    nodes = [node("e1", **{"management-address": "10.99.0.11", "underlay-mtu": 9000}), node("e2")]
    plans = plan_nodes(nodes, [proxy("e1")], [], "1.40.0", POOL6)
    hosts = inventory(plans, SETTINGS)["all"]["hosts"]
    assert hosts["e2"] == {"ansible_host": "192.0.2.1", "epic_instances": [], "epic_kept_gateways": []}
    assert hosts["e1"] == {
        "ansible_host": "10.99.0.11",
        "epic_kept_gateways": [],
        "epic_instances": [
            {
                "gateway": "root.U1",
                "account": "root",
                "node_id": "epic-root.U1",
                "public_address": "203.0.113.1",
                "inside_address": "100.64.0.1",
                "inside_address6": "fd65:7069:6300::6440:1",
                "interface": "epg64400001298c",
                "mtu": 8952,
                "envoy_version": "1.40.0",
                "concurrency": 1,
                "may_restart": False,
            }
        ],
    }


def test_a_second_address_is_named_where_there_is_one() -> None:
    """Nodes of a version that knows of none take gateways without."""
    dual = proxy("e1")
    spec = dual.spec.model_copy(update={"alt_address": IPv6Address("2001:db8::1")})
    dual = dual.model_copy(update={"spec": spec})
    (described,) = plan_nodes([node("e1")], [dual], [], "1.40.0", POOL6)["e1"].instances
    assert (described["public_address"], described["alt_address"]) == ("203.0.113.1", "2001:db8::1")


def test_a_run_does_not_make_again_what_another_has_removed() -> None:
    """Its goal may still be to serve: the next look at it finds that it goes, and waits for no run."""
    removed = proxy("e1", phase="Withdrawn", goal="serve", unit="removed")
    plan = plan_nodes([node("e1")], [removed], [], "1.40.0", POOL6)["e1"]
    assert plan.instances == ()
    assert plan.removed == {("root.U1", IPv4Address("100.64.0.1"))}


@pytest.mark.parametrize(("address", "mtu"), [("192.0.2.1", 1452), ("2001:db8::1", 1432)])
def test_tunnels_take_more_of_an_ipv6_underlays_mtu(address: str, mtu: int) -> None:
    plans = plan_nodes([node("e1", address=address)], [proxy("e1")], [], "1", POOL6)
    assert plans["e1"].instances[0]["mtu"] == mtu


def test_a_template_can_ask_for_another_envoy() -> None:
    plans = plan_nodes([node("e1")], [proxy("e1")], [group("1.39.1")], "1.40.0", POOL6)
    assert plans["e1"].instances[0]["envoy_version"] == "1.39.1"


def test_what_a_node_has_of_a_gateway_that_cannot_be_read_is_kept_on_every_node() -> None:
    unreadable = Unreadable(gateways=frozenset({GatewayId("root", "U9")}))
    plans = plan_nodes([node("e1"), node("e2")], [proxy("e1")], [], "1", POOL6, unreadable)
    hosts = inventory(plans, SETTINGS)["all"]["hosts"]
    assert [host["epic_kept_gateways"] for host in hosts.values()] == [["root.U9"], ["root.U9"]]
    assert [i["gateway"] for i in hosts["e1"]["epic_instances"]] == ["root.U1"]


def test_an_instance_whose_template_cannot_be_read_keeps_its_envoy() -> None:
    unreadable = Unreadable(groups=frozenset({("root", "g")}))
    gateway = proxy("e1", "e2", **{"envoy-version": "1.39.1"})
    new, running = (
        gateway.status.instances[0].model_copy(update={"envoy_version": ""}),
        gateway.status.instances[1],
    )
    gateway = gateway.model_copy(
        update={"status": gateway.status.model_copy(update={"instances": (new, running)})}
    )
    plans = plan_nodes([node("e1"), node("e2")], [gateway], [], "1.40.0", POOL6, unreadable)
    assert [plan.instances[0]["envoy_version"] for plan in plans.values()] == ["1.39.1", "1.39.1"]
    plans = plan_nodes([node("e1")], [proxy("e1")], [], "1.40.0", POOL6, unreadable)
    assert (plans["e1"].instances, plans["e1"].kept) == ((), {"root.U1"}), "nobody knows which to run"


def test_runs_use_the_command_that_their_key_is_restricted_to() -> None:
    assert inventory({}, SETTINGS)["all"]["vars"]["epic_forced_command"] is True


def raw(kind: str, host: str = "e1", **fields: Any) -> dict[str, Any]:
    return {"event": kind, "event_data": {"host": host, "task": "T", **fields}}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (raw("playbook_on_task_start"), {"event": "task", "task": "T", "state": "started"}),
        (raw("runner_on_ok"), {"event": "task", "task": "T", "node": "e1", "state": "ok"}),
        (
            raw("runner_on_ok", res={"changed": True}),
            {"event": "task", "task": "T", "node": "e1", "state": "changed"},
        ),
        (
            raw("runner_on_failed", res={"msg": "no disk"}),
            {"event": "task", "task": "T", "node": "e1", "state": "failed", "message": "no disk"},
        ),
        (
            raw("runner_on_failed", res={"msg": "MODULE FAILURE: see", "module_stderr": "Traceback"}),
            {
                "event": "task",
                "task": "T",
                "node": "e1",
                "state": "failed",
                "message": "MODULE FAILURE: see: Traceback",
            },
        ),
        (
            raw("runner_on_failed", ignore_errors=True, res={"msg": "x"}),
            {"event": "task", "task": "T", "node": "e1", "state": "ok"},
        ),
        (raw("playbook_on_stats"), None),
    ],
)
def test_readers_get_what_tasks_do_on_nodes(event: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert reader_event(event) == expected


def test_a_nodes_result_is_its_worst_task() -> None:
    states = [("e1", "changed"), ("e1", "ok"), ("e2", "ok"), ("e2", "unreachable")]
    events = [{"event": "task", "task": s, "node": n, "state": s} for n, s in states]
    results = node_results(["e1", "e2", "e3"], events, "playbook not found")
    assert {name: (r.state, r.task) for name, r in results.items()} == {
        "e1": ("changed", "changed"),
        "e2": ("unreachable", "unreachable"),
        "e3": ("failed", ""),
    }
    assert results["e3"].message == "playbook not found"


def condition(found: GWProxy) -> tuple[str, str, str]:
    (only,) = (c for c in found.status.conditions if c.type == "Programmed")
    return only.status, only.reason, only.message


OK = NodeOutcome(NodeResult(state="ok"))
DOWN = NodeOutcome(NodeResult(state="unreachable", task="T", message="ssh: no route to host"))


def plans(*gateways: GWProxy) -> dict[str, NodePlan]:
    return plan_nodes([node("e1"), node("e2")], gateways, [], "1", POOL6)


def test_gateway_is_programmed_when_all_its_nodes_are() -> None:
    gateway = proxy("e1", "e2")
    half = noted(gateway, plans(gateway)["e1"], OK, "7")
    assert condition(half) == ("Unknown", "Pending", "1 of 2 instances wait for a run")
    assert condition(noted(half, plans(gateway)["e2"], OK, "8")) == ("True", "Programmed", "")


def test_what_a_node_said_is_not_for_the_gateways_owner() -> None:
    gateway = proxy("e1", "e2")
    failed = noted(noted(gateway, plans(gateway)["e1"], OK, "7"), plans(gateway)["e2"], DOWN, "8")
    told = ("False", "RunFailed", "run 8 failed on a node; the platform's operators can see why")
    assert condition(failed) == told
    assert condition(noted(failed, plans(gateway)["e1"], OK, "9")) == told
    assert condition(noted(failed, plans(gateway)["e2"], OK, "9"))[0] == "True"


def test_an_instance_that_failed_fails_alone() -> None:
    bad, good = proxy("e1"), proxy("e1", name="U2")
    result = NodeResult(state="changed", errors={"root.U1": "Envoy 9 is not in /opt/envoy"})
    outcome = NodeOutcome(result, {"root.U1": "none", "root.U2": "create"}, envoy_versions=("1.40.0",))
    plan = plan_nodes([node("e1")], [bad, good], [], "9", POOL6)["e1"]
    assert condition(noted(bad, plan, outcome, "7")) == (
        "False",
        "EnvoyVersionNotInstalled",
        "Envoy 9 is not installed on a node",
    )
    assert condition(noted(good, plan, outcome, "7"))[0] == "True"


def test_an_instance_that_had_to_be_left_alone_is_outdated() -> None:
    gateway = proxy("e1", unit="current", **{"envoy-version": "1"})
    outcome = NodeOutcome(NodeResult(state="ok"), {"root.U1": "deferred"})
    (instance,) = noted(gateway, plans(gateway)["e1"], outcome, "7").status.instances
    assert (instance.unit, instance.envoy_version) == ("outdated", "1")


def test_a_run_removes_what_is_withdrawn_to_be_removed_and_says_so() -> None:
    gateway = proxy("e1", phase="Withdrawn", goal="remove", unit="current")
    plan = plans(gateway)["e1"]
    assert plan.instances == ()
    (instance,) = noted(gateway, plan, OK, "7").status.instances
    assert instance.unit == "removed"
    (instance,) = noted(gateway, plan, DOWN, "7").status.instances
    assert (instance.unit, instance.run_error.partition(":")[0]) == ("current", "RunFailed")


@pytest.mark.parametrize(
    ("phase", "allowed"),
    [("Planned", False), ("Prepared", False), ("Serving", False), ("Draining", False), ("Withdrawn", True)],
)
def test_only_what_does_not_serve_may_be_restarted(phase: str, allowed: bool) -> None:
    (described,) = plans(proxy("e1", phase=phase))["e1"].instances
    assert described["may_restart"] is allowed


def test_a_gateway_made_after_the_run_began_does_not_profit_from_it() -> None:
    gateway = proxy("e1")
    assert noted(gateway, plans()["e1"], OK, "7") == gateway


def test_what_the_agent_said_of_an_instance_stays() -> None:
    gateway = proxy("e1", ready=True, announced=True)
    (instance,) = noted(gateway, plans(gateway)["e1"], OK, "7").status.instances
    assert (instance.ready, instance.announced, instance.programmed) == (True, True, True)


def test_the_modules_result_tells_of_each_instance_and_of_the_nodes_envoys() -> None:
    result = {
        "instances": [
            {"gateway": "a.x", "action": "create", "error": ""},
            {"gateway": "a.y", "action": "none", "error": "no disk"},
        ],
        "envoy_versions": ["1.40.0", "1.41.0"],
    }
    event = raw("runner_on_ok", res={"changed": True, **result})
    assert ends_node(event) == "e1"
    found = outcome(NodeResult(state="changed"), [raw("playbook_on_task_start"), event])
    assert found.actions == {"a.x": "create", "a.y": "none"}
    assert (found.result.errors, found.envoy_versions) == ({"a.y": "no disk"}, ("1.40.0", "1.41.0"))
    assert (found.succeeded, found.failed) == (True, True)


@pytest.mark.parametrize(
    ("event", "node_ended"),
    [
        (raw("runner_on_unreachable"), "e1"),
        (raw("runner_on_failed"), "e1"),
        (raw("runner_on_failed", ignore_errors=True), None),
        (raw("runner_on_ok", res={"msg": "a task before"}), None),
        (raw("playbook_on_stats"), None),
    ],
)
def test_a_nodes_run_ends_with_the_modules_result_or_a_failure(
    event: dict[str, Any], node_ended: str | None
) -> None:
    assert ends_node(event) == node_ended


def test_a_queued_run_says_what_it_waits_for() -> None:
    def run(name: str, **status: object) -> Run:
        return Run.model_validate({"metadata": {"name": name}, "spec": {"nodes": ["e1"]}, "status": status})

    running = run("1", state="running")
    assert waits_for(run("2"), [running]) == "run 1 on e1"
    assert waits_for(run("2"), []) == "its turn"
    retry = run("3", attempt=2, **{"not-before": "2026-01-01T00:00:00Z"})
    assert waits_for(retry, []) == "2026-01-01T00:00:00+00:00: it is attempt 3"
    assert waits_for(running, []) == ""


def test_retries_wait_longer_each_time_up_to_a_minute() -> None:
    assert [backoff(n) for n in (1, 2, 3, 4, 5, 99)] == [5, 10, 20, 40, 60, 60]
