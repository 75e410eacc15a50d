"""Inventory, results of Ansible's events, and what they mean to gateways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from epic.ipam import DEFAULT_POOLS
from epic.model.resources import GWProxy, LBServiceGroup, Node
from epic.model.runs import NodeResult
from epic.runs.inventory import inventory, plan_nodes
from epic.runs.programmed import programmed
from epic.runs.queue import backoff
from epic.runs.results import node_results, reader_event
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


def proxy(*nodes: str, group: str = "g", **instance: Any) -> GWProxy:
    instances = [{"node": n, "inside-address": f"100.64.0.{i}", **instance} for i, n in enumerate(nodes, 1)]
    return GWProxy.model_validate(
        {
            "metadata": {"name": "U1", "namespace": "root"},
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
    assert hosts["e2"] == {"ansible_host": "192.0.2.1", "epic_instances": []}
    assert hosts["e1"] == {
        "ansible_host": "10.99.0.11",
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
            }
        ],
    }


@pytest.mark.parametrize(("address", "mtu"), [("192.0.2.1", 1452), ("2001:db8::1", 1432)])
def test_tunnels_take_more_of_an_ipv6_underlays_mtu(address: str, mtu: int) -> None:
    plans = plan_nodes([node("e1", address=address)], [proxy("e1")], [], "1", POOL6)
    assert plans["e1"].instances[0]["mtu"] == mtu


def test_a_template_can_ask_for_another_envoy() -> None:
    plans = plan_nodes([node("e1")], [proxy("e1")], [group("1.39.1")], "1.40.0", POOL6)
    assert plans["e1"].instances[0]["envoy_version"] == "1.39.1"


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


def condition(found: GWProxy) -> tuple[str, str]:
    (only,) = found.status.conditions
    return only.status, only.message


OK = NodeResult(state="ok")
DOWN = NodeResult(state="unreachable", task="T", message="no route to host")


def test_gateway_is_programmed_when_all_its_nodes_are() -> None:
    gateway = proxy("e1", "e2")
    plans = plan_nodes([node("e1"), node("e2")], [gateway], [], "1", POOL6)
    half = programmed(gateway, {"e1": plans["e1"]}, {"e1": OK})
    assert condition(half) == ("Unknown", "waiting for a run on e2")
    assert condition(programmed(half, plans, {"e2": OK})) == ("True", "")


def test_gateway_names_the_node_that_failed_until_it_succeeds() -> None:
    gateway = proxy("e1", "e2")
    plans = plan_nodes([node("e1"), node("e2")], [gateway], [], "1", POOL6)
    failed = programmed(gateway, plans, {"e1": OK, "e2": DOWN})
    assert condition(failed) == ("False", "node e2: unreachable: T: no route to host")
    assert condition(programmed(failed, plans, {"e1": OK})) == (
        "False",
        "node e2: unreachable: T: no route to host",
    )
    assert condition(programmed(failed, plans, {"e2": OK})) == ("True", "")


def test_a_gateway_made_after_the_run_began_does_not_profit_from_it() -> None:
    gateway = proxy("e1")
    plans = plan_nodes([node("e1")], [], [], "1", POOL6)
    assert programmed(gateway, plans, {"e1": OK}) == gateway


def test_what_the_agent_said_of_an_instance_stays() -> None:
    gateway = proxy("e1", ready=True, announced=True)
    plans = plan_nodes([node("e1")], [gateway], [], "1", POOL6)
    (instance,) = programmed(gateway, plans, {"e1": OK}).status.instances
    assert (instance.ready, instance.announced, instance.programmed) == (True, True, True)


def test_retries_wait_longer_each_time_up_to_a_minute() -> None:
    assert [backoff(n) for n in (1, 2, 3, 4, 5, 99)] == [5, 10, 20, 40, 60, 60]
