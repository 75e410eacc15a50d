# SPDX-License-Identifier: Apache-2.0
"""An EPIC node's part in second chance: its programs know the siblings, and nothing else waits for that.

- Siblings reach the programs, with the id of the instance's network namespace; the version is told.
- The entry outlives the agent, and an agent without state; what others take away is there again soon.
- A newcomer is not announced while it is held; what is announced stays so.
- A node without programs is silent within a second, and back at once; one without an agent is not silent.
- What became of a gateway's packets is told.
- Switched off, nothing is left, and the node says so.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
from agent_control import GATEWAY, KEY, PUBLIC, Gateway, snapshot, with_siblings
from agent_node import FAR, FAR6, UNDERLAY, UNDERLAY6, Node, eventually, plane

from epic.ads.snapshot import SIBLINGS, Snapshot
from epic.agent.runtime import store
from epic.bpf.dataplane import Address, Sibling, Siblings
from epic.proto.epic_pb2 import NodeReport

pytestmark = pytest.mark.root
BACKEND = "192.168.50.11"
PAIR = (f"epic1 {UNDERLAY}", f"epic2 {FAR}")


def published(node: Node, *, hold: bool = False) -> Snapshot:
    content = with_siblings(Gateway(hold=hold).snapshot(BACKEND), *PAIR)
    node.control.publish(content)
    return content


def version(content: Snapshot) -> str:
    return content[SIBLINGS][GATEWAY].version


def has(version: str) -> object:
    return lambda r: r.instances and r.instances[0].applied_siblings == version


def entry(node: Node) -> Siblings | None:
    try:
        return dict(plane(node.pins).siblings()).get(PUBLIC)
    except FileNotFoundError:
        return None


def alive(node: Node) -> bool:
    """Whether the sibling at the far end is passed packets on."""
    found = entry(node)
    return found is not None and all(sibling.alive for sibling in found.siblings)


def addresses(node: Node) -> set[Address]:
    found = entry(node)
    return {sibling.address for sibling in found.siblings} if found is not None else set()


@pytest.fixture
async def ready(node: Node) -> Node:
    """A node with siblings and an instance without Envoy."""
    content = published(node)
    node.start_agent()
    node.add_instance()
    await node.control.report(has(version(content)), 15)
    return node


class Other:
    """The programs of the other sibling's node, which has no agent."""

    def __init__(self, node: Node, pins: Path) -> None:
        self._node = node
        self._dataplane = plane(pins)

    async def load(self, own: str = UNDERLAY, far: str = FAR) -> None:
        siblings = Siblings(
            own=1,
            netns=None,
            siblings=(
                Sibling(0, ip_address(own), draining=False, alive=True),
                Sibling(1, ip_address(far), draining=False, alive=True),
            ),
            keys=(None, KEY),
            active=1,
            account=1,
        )
        self._node.far.sysctl("ip_forward", 1)
        await self._do(self._dataplane.load)
        await self._do(self._dataplane.set_siblings, PUBLIC, siblings)

    async def attach(self) -> None:
        await self._do(self._dataplane.attach_underlay, "up0", "gateway")

    async def detach(self) -> None:
        await self._do(self._dataplane.detach_underlay, "up0")

    async def unload(self) -> None:
        await self._do(self._dataplane.unload)

    async def _do(self, call: Callable[..., None], *arguments: object) -> None:
        def there() -> None:
            with self._node.far:
                call(*arguments)

        await asyncio.to_thread(there)


@pytest.fixture
async def other(node: Node, bpffs: Path) -> AsyncIterator[Other]:
    """It takes part."""
    made = Other(node, bpffs / f"{node.directory.name}-other")
    await made.load()
    await made.attach()
    yield made
    await made.unload()


async def test_the_programs_know_the_siblings_and_the_namespace_of_the_instance(node: Node) -> None:
    content = published(node)
    node.start_agent()
    await eventually(lambda: (found := entry(node)) is not None and found.netns is None, 60, "the entry")
    node.add_instance()
    await eventually(lambda: (found := entry(node)) is not None and found.netns is not None, 2, "the id")
    await node.control.report(has(version(content)))
    found = entry(node)
    assert found is not None
    assert (found.own, [s.address for s in found.siblings]) == (0, [ip_address(UNDERLAY), ip_address(FAR)])
    node.remove_instance()
    await eventually(lambda: (found := entry(node)) is not None and found.netns is None, 2, "no id")


async def test_another_list_is_told_as_soon_as_the_programs_have_it(ready: Node) -> None:
    content = with_siblings(snapshot(BACKEND), *PAIR, "epic3 172.30.11.9")
    ready.control.publish(content)
    await ready.control.report(has(version(content)), 2)
    found = entry(ready)
    assert found is not None and len(found.siblings) == 3
    ready.control.publish(snapshot(BACKEND))
    await ready.control.report(has(""), 2)
    assert entry(ready) is None


async def test_the_siblings_outlive_the_agent_and_its_state(ready: Node) -> None:
    before = entry(ready)
    ready.stop_agent(crash=True)
    assert entry(ready) == before
    await ready.control.stop()
    (ready.directory / "state" / store.FILE).write_bytes(b"nonsense")
    ready.start_agent()
    await asyncio.sleep(2)
    assert ready.is_agent_alive()
    found = entry(ready)
    assert found is not None and found.keys == before.keys  # type: ignore[union-attr]


async def test_what_others_take_away_is_mended(ready: Node) -> None:
    plane(ready.pins).delete_siblings(PUBLIC)
    await eventually(lambda: entry(ready) is not None, 7, "the entry")


async def test_a_newcomer_waits_and_what_is_announced_stays_so(ready: Node) -> None:
    published(ready, hold=True)
    ready.start_envoy()
    await ready.control.report(lambda r: r.instances[0].serving_revision == "r1", 15)
    await asyncio.sleep(1)
    assert not ready.is_announced()
    published(ready)
    await eventually(ready.is_announced, 2, "the announcement")
    published(ready, hold=True)
    await asyncio.sleep(1)
    assert ready.is_announced()


async def test_a_node_is_silent_when_its_programs_are_gone(ready: Node, other: Other) -> None:
    await eventually(lambda: alive(ready), 3, "an answer")
    await asyncio.sleep(2)
    assert alive(ready)
    await other.detach()
    assert await eventually(lambda: not alive(ready), 2, "silence") < 1
    await ready.control.report(lambda r: list(r.silent_addresses) == [FAR], 10)
    await other.attach()
    await eventually(lambda: alive(ready), 1, "an answer")


async def test_nodes_with_ipv6_addresses_ask_each_other_too(ready: Node, other: Other) -> None:
    await other.load(UNDERLAY6, FAR6)
    nodes = (f"epic1 {UNDERLAY6}", f"epic2 {FAR6}")
    ready.control.publish(with_siblings(snapshot(BACKEND), *nodes))
    await eventually(lambda: ip_address(FAR6) in addresses(ready), 3, "the list")
    await asyncio.sleep(2)
    assert alive(ready)
    await other.detach()
    await eventually(lambda: not alive(ready), 2, "silence")


async def test_a_silent_node_is_so_for_the_next_agent_too(ready: Node) -> None:
    await eventually(lambda: not alive(ready), 3, "silence")
    ready.stop_agent()
    assert not alive(ready)
    ready.start_agent()
    await ready.control.report(lambda r: r.instances, 10)
    assert not alive(ready)


@pytest.mark.usefixtures("other")
async def test_a_node_whose_key_is_another_is_not_asked_for_packets(ready: Node) -> None:
    await eventually(lambda: alive(ready), 3, "an answer")
    ready.control.publish(with_siblings(snapshot(BACKEND), *PAIR, keys=((3, bytes(16)),)))
    await eventually(lambda: not alive(ready), 3, "silence")


def send_stray(node: Node) -> None:
    """A segment of a connection that nobody has comes to the node by its underlay."""
    ends = ip_address("192.0.2.7").packed + PUBLIC.packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, socket.IPPROTO_TCP, 0) + ends
    acknowledgement = struct.pack("!HHIIBBHHH", 40_000, 80, 1, 1, 5 << 4, 0x10, 65_535, 0, 0)
    node.far.run(f"ip route replace {PUBLIC} via {UNDERLAY}")
    with node.far, socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(head + acknowledgement, (str(PUBLIC), 0))


@pytest.mark.usefixtures("other")
async def test_what_became_of_a_gateways_packets_is_told(ready: Node) -> None:
    await eventually(lambda: alive(ready), 3, "an answer")
    send_stray(ready)
    report = await ready.control.report(lambda r: r.second_chances, 8)
    (said,) = report.second_chances
    assert (said.gateway, said.hits, said.passed_on, said.learned, said.chain_ends) == (GATEWAY, 0, 1, 0, 1)


async def test_a_node_that_is_switched_off_keeps_nothing_and_says_so(ready: Node) -> None:
    ready.stop_agent()
    ready.configure(second_chance=False)
    ready.start_agent()

    def refused(report: NodeReport) -> bool:
        return not report.second_chance and "gateway_node_second_chance" in report.second_chance_refusal

    await ready.control.report(refused, 10)
    await eventually(lambda: entry(ready) is None, 5, "nothing")
