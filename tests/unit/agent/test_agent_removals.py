# SPDX-License-Identifier: Apache-2.0
"""Removals that take too much at once are held back.

- What drained before, or is less than half, goes when the word on the node has come.
- More than half at once stays, whole, until somebody says that it is meant or it is wanted again.
- A node that leaves keeps nothing, neither in memory nor on disk.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from agent_samples import endpoint_message, instance_message
from envoy.config.listener.v3.listener_pb2 import Listener

from epic.ads.snapshot import ENDPOINT, INSTANCE, LISTENER, NODE_STATE, TYPES, versioned
from epic.agent.gateway.control import intake as intake_module
from epic.agent.gateway.control import storage
from epic.agent.gateway.control.intake import Intake
from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.runtime.store import Saver
from epic.model.values.naming import instance_interface
from epic.proto import epic_pb2

GATEWAYS = [f"shop.g{number}" for number in range(4)]


def inside(gateway: str) -> IPv4Address:
    return IPv4Address("100.64.0.1") + GATEWAYS.index(gateway)


def instance(gateway: str, *, draining: bool = False) -> epic_pb2.Instance:
    address = inside(gateway)
    return instance_message(
        gateway=gateway,
        inside_address=str(address),
        interface=instance_interface(gateway, address),
        draining=draining,
    )


class Node:
    """A node with four gateways, as its agent sees it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cache = ResourceCache()
        self.saver = Saver(directory)
        self.restarts = 0
        self.intake = Intake(self.cache, self.saver, lambda: None, self.restart)

    def restart(self) -> None:
        self.restarts += 1

    async def begin(self, draining: tuple[str, ...] = ()) -> None:
        for type_url in TYPES:
            await self.intake.apply(type_url, {}, [])
        instances = {g: versioned(instance(g, draining=g in draining)) for g in GATEWAYS}
        await self.intake.apply(INSTANCE, instances, [])
        listeners = {f"{g}/http": versioned(Listener(name="http")) for g in GATEWAYS}
        await self.intake.apply(LISTENER, listeners, [])

    async def remove(self, *gateways: str) -> None:
        """As the control plane sends it."""
        await self.intake.apply(LISTENER, {}, [f"{g}/http" for g in gateways])
        await self.intake.apply(INSTANCE, {}, list(gateways))

    async def tell(self, digest: str, meant: str = "", *, removed: bool = False) -> None:
        state = epic_pb2.NodeState(digest=digest, meant_digest=meant, removed=removed)
        await self.intake.apply(NODE_STATE, {"node": versioned(state)}, [])

    @property
    def left(self) -> list[str]:
        """Gateways that are whole."""
        assert self.cache.instances.keys() == self.cache.parts.keys()
        return sorted(self.cache.instances)


@pytest.fixture
async def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_a_few_go_with_the_word_on_the_node(node: Node) -> None:
    await node.begin()
    await node.remove(*GATEWAYS[:2])
    assert node.left == GATEWAYS
    await node.tell("d1")
    assert node.left == GATEWAYS[2:]
    assert not node.intake.held


async def test_more_than_half_at_once_stays(node: Node) -> None:
    await node.begin()
    await node.remove(*GATEWAYS[:3])
    await node.tell("d1")
    assert node.left == GATEWAYS
    assert node.intake.held == set(GATEWAYS[:3])
    assert "3 gateways are to go at once" in node.intake.problems[0]
    await node.tell("d1", meant="d1")
    assert node.left == GATEWAYS[3:]
    assert (node.intake.held, node.intake.problems) == (frozenset(), [])


async def test_an_order_that_is_meant_otherwise_stays_held(node: Node) -> None:
    await node.begin()
    await node.remove(*GATEWAYS[:3])
    await node.tell("d2", meant="d1")
    assert node.left == GATEWAYS


async def test_the_last_gateway_may_go(node: Node) -> None:
    await node.begin(draining=tuple(GATEWAYS[:3]))
    await node.remove(*GATEWAYS[:3])
    await node.tell("d1")
    await node.remove(GATEWAYS[3])
    await node.tell("d2")
    assert node.left == []


async def test_gateways_that_drained_go_at_once(node: Node) -> None:
    await node.begin(draining=tuple(GATEWAYS))
    await node.remove(*GATEWAYS)
    assert node.left == []


async def test_what_is_held_and_wanted_again_is_held_no_more(node: Node) -> None:
    await node.begin()
    await node.remove(*GATEWAYS[:3])
    await node.tell("d1")
    await node.intake.apply(INSTANCE, {g: versioned(instance(g)) for g in GATEWAYS[:3]}, [])
    await node.intake.apply(LISTENER, {f"{g}/http": versioned(Listener()) for g in GATEWAYS[:3]}, [])
    await node.tell("d2")
    assert (node.left, node.intake.held) == (GATEWAYS, frozenset())


async def test_what_is_held_is_there_again_after_a_restart(node: Node) -> None:
    await node.begin()
    await node.remove(*GATEWAYS[:3])
    await node.tell("d1")
    node.saver.close()
    stored = storage.load(node.directory)
    assert stored is not None
    assert sorted(stored.instances) == GATEWAYS


async def test_a_gateway_that_loses_its_last_listener_loses_it_a_little_later(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "_DECIDE_SECONDS", 0.01)
    await node.begin()
    await node.intake.apply(LISTENER, {}, [f"{GATEWAYS[0]}/http"])
    assert GATEWAYS[0] in node.cache.parts
    async with asyncio.timeout(60):
        while GATEWAYS[0] in node.cache.parts:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert sorted(node.cache.instances) == GATEWAYS


async def test_other_removals_wait_for_nothing(node: Node) -> None:
    await node.begin()
    name = f"{GATEWAYS[0]}/192.168.50.11"
    message = endpoint_message(IPv4Address("192.168.50.11"), inside=inside(GATEWAYS[0]))
    message.gateway = GATEWAYS[0]
    await node.intake.apply(ENDPOINT, {name: versioned(message)}, [])
    assert len(list(node.cache.endpoints())) == 1
    await node.intake.apply(ENDPOINT, {}, [name])
    assert not list(node.cache.endpoints())


async def test_a_node_that_leaves_keeps_nothing(node: Node) -> None:
    await node.begin()
    await node.tell("d1", meant="d1", removed=True)
    assert (node.left, node.intake.removed) == ([], True)
    await asyncio.gather(*(t for t in asyncio.all_tasks() if t.get_name() == "forget"))
    node.saver.close()
    assert storage.load(node.directory) is None
    await node.tell("d2")
    assert node.restarts == 1


async def test_a_node_that_is_to_leave_with_gateways_that_nobody_drained_stays(node: Node) -> None:
    await node.begin()
    await node.remove(*GATEWAYS)
    await node.tell("d1", removed=True)
    assert (node.left, node.intake.removed) == (GATEWAYS, False)


async def test_a_node_that_was_removed_by_force_drops_everything(node: Node) -> None:
    await node.begin()
    node.intake.drop_node()
    assert (node.left, node.intake.removed) == ([], True)
