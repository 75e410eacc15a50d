# SPDX-License-Identifier: Apache-2.0
"""What an EPIC node reports, and when.

- A change of the instances is told alone, and only if it is one.
- Everything is told every few seconds, however often the instances change, and when tunnels changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import grpc
import pytest
from agent_samples import PUBLIC, PUBLIC6, WEB, instance, tunnel

from epic.agent.gateway.control import report
from epic.agent.gateway.control.report import (
    Made,
    Reporter,
    TunnelReport,
    second_chance_statuses,
    tunnel_statuses,
)
from epic.agent.gateway.envoy.readiness import Envoy
from epic.agent.gateway.plans.plan import NOT_FORWARDED
from epic.bpf.dataplane import Address, Peer, SecondChanceCounters, TunnelCounters
from epic.bpf.tables.chance_counters import CHANCE_COUNTERS
from epic.proto.epic_pb2 import InstanceStatus, NodeReport, SecondChanceStatus, TunnelStatus


class Node:
    """A node with one instance and one tunnel; also the channel to a control plane that notes reports."""

    def __init__(self) -> None:
        self.instance = InstanceStatus(gateway=WEB, serving_revision="r1")
        self.reports: list[NodeReport] = []
        self.refuses = False
        self.reporter = Reporter(
            "epic1", lambda: self, lambda: NodeReport(instances=[self.instance]), self.tunnels
        )  # type: ignore[arg-type, return-value]

    async def tunnels(self) -> TunnelReport:
        return TunnelReport([TunnelStatus(id=7)], {"too_big": 1})

    def unary_unary(self, *_: object, **__: object) -> Any:
        async def call(request: NodeReport, **_: object) -> None:
            if self.refuses:
                raise grpc.RpcError
            self.reports.append(request)

        return call

    @property
    def kinds(self) -> str:
        """What was told: A for all, I for the instances."""
        return "".join("I" if told.instances_only else "A" for told in self.reports)

    async def serve(self, revision: str) -> None:
        self.instance = InstanceStatus(gateway=WEB, serving_revision=revision)
        await self.wake()

    async def wake(self, *, tunnels: bool = False) -> None:
        self.reporter.wake(tunnels=tunnels)
        # In pieces: on a busy machine one long sleep may end together with the reporter's.
        for _ in range(6):
            await asyncio.sleep(0.01)


def test_an_instance_says_why_the_node_does_not_have_what_it_needs() -> None:
    instances = {WEB: instance()}
    told = report.instance_statuses(
        instances, {WEB: Envoy()}, frozenset(), made=Made(failures={WEB: "its tunnels cannot be set"})
    )
    assert [status.kernel_error for status in told] == ["its tunnels cannot be set"]
    assert report.instance_statuses(instances, {WEB: Envoy()}, frozenset())[0].kernel_error == ""


def test_an_instance_serves_at_the_addresses_that_its_node_can_announce_and_speaks_of_the_other() -> None:
    instances, envoys = {WEB: replace(instance(), publics=(PUBLIC, PUBLIC6))}, {WEB: Envoy()}

    def told(standing: set[Address], withheld: str = "") -> tuple[bool, str]:
        made = Made(withheld={WEB: withheld} if withheld else {})
        (status,) = report.instance_statuses(instances, envoys, standing, made=made)
        return status.announced, status.address_error

    assert told({PUBLIC}, NOT_FORWARDED) == (True, NOT_FORWARDED)
    assert told(set(), NOT_FORWARDED) == (False, ""), "why it serves nowhere is another matter"
    assert told({PUBLIC}) == (True, "2001:db8::7 is not announced: it has no flag route")
    assert told({PUBLIC6}) == (
        True,
        "203.0.113.7 is not announced: it has no flag route",
    )
    assert told({PUBLIC, PUBLIC6}) == (True, "")
    assert told(set()) == (False, "")


def test_an_instance_that_is_announced_at_one_address_still_is_not_drained() -> None:
    instances = {WEB: replace(instance(), publics=(PUBLIC, PUBLIC6))}
    (status,) = report.instance_statuses(instances, {WEB: Envoy()}, {PUBLIC}, drained=(WEB,))
    assert (status.announced, status.drained) == (True, False)


@asynccontextmanager
async def reporting() -> AsyncIterator[Node]:
    """The node after its first report."""
    node = Node()
    task = asyncio.create_task(node.reporter.run())
    await node.wake()
    yield node
    task.cancel()


async def test_the_first_report_is_whole() -> None:
    async with reporting() as node:
        (told,) = node.reports
    assert (told.node, told.instances_only) == ("epic1", False)
    assert ([t.id for t in told.tunnels], dict(told.drops)) == ([7], {"too_big": 1})
    assert [i.serving_revision for i in told.instances] == ["r1"]


async def test_a_change_of_the_instances_is_told_alone_and_once() -> None:
    async with reporting() as node:
        await node.serve("r2")
        await node.wake()
    told = node.reports[-1]
    assert node.kinds == "AI"
    assert ([i.serving_revision for i in told.instances], [*told.tunnels]) == (["r2"], [])


async def test_a_change_of_the_tunnels_is_told_with_everything() -> None:
    async with reporting() as node:
        await node.wake(tunnels=True)
    assert node.kinds == "AA"


async def test_everything_is_told_in_time_however_often_instances_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report, "REPORT_SECONDS", 0.2)
    async with reporting() as node:
        for number in range(8):
            await node.serve(f"r{number + 2}")
    assert node.kinds.count("A") >= 3
    assert "I" in node.kinds


async def test_what_was_not_taken_is_told_again() -> None:
    async with reporting() as node:
        node.refuses = True
        await node.serve("r2")
        node.refuses = False
        await node.wake()
    assert (node.kinds, node.reports[-1].instances[0].serving_revision) == ("AI", "r2")


class Programs:
    """Tunnels 7 to 9 as the programs have them; the agent's own are 7 and 8."""

    def observed(self) -> Iterator[tuple[int, TunnelCounters, tuple[Peer, ...]]]:
        first, second = IPv4Address("198.51.100.1"), IPv4Address("198.51.100.2")
        common: dict[str, Any] = {"local": None, "counter": 1, "lanes": 2, "spread": False, "checksum": False}
        lanes = (
            Peer(first, 6080, last_hello_ns=1_000_000_000, **common),
            Peer(second, 6081, last_hello_ns=3_000_000_000, **common),
        )
        nothing = TunnelCounters(0, 0, 0, 0)
        yield from ((9, nothing, lanes[:1]), (7, TunnelCounters(1, 2, 3, 4), lanes), (8, nothing, ()))


def test_a_tunnel_is_where_its_first_lane_is_and_as_alive_as_the_last_heard() -> None:
    found = tunnel_statuses(Programs(), {7: tunnel(), 8: tunnel(8)}, 5_000_000_000)  # type: ignore[arg-type]
    assert list(found) == [
        TunnelStatus(
            id=7,
            observed_address="198.51.100.1",
            observed_port=6080,
            hello_age=2,
            rx_packets=1,
            rx_bytes=2,
            tx_packets=3,
            tx_bytes=4,
        ),
        TunnelStatus(id=8, hello_age=-1),
    ]


def test_of_gateways_that_had_packets_it_is_told_what_became_of_them() -> None:
    """Passed on is what goes to the owner at once, too."""
    none = dict.fromkeys(("hits", *dict(CHANCE_COUNTERS)), 0)
    some = none | {"hits": 9, "passed_on": 3, "to_owner": 4, "learned": 2, "chain_ends": 1, "over_budget": 5}
    chances = {WEB: SecondChanceCounters(**some), "shop.idle": SecondChanceCounters(**none)}
    (said,) = second_chance_statuses(chances)
    expected = {"gateway": WEB, "hits": 9, "passed_on": 7, "learned": 2, "chain_ends": 1, "over_budget": 5}
    assert said == SecondChanceStatus(**expected)  # type: ignore[arg-type]
