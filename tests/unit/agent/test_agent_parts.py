# SPDX-License-Identifier: Apache-2.0
"""However much there is to do at once, others have their turn in between.

- Actions are carried out in parts, in order; what fails is told as the whole that it was a piece of.
- A message of the control plane is read in parts, and taken in at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from agent_samples import INSIDE, INTERFACE, VIA, WEB, siblings_message, tunnel

from epic.ads.snapshot import SIBLINGS, TYPES, versioned
from epic.agent.gateway.control.intake import Intake
from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.gateway.kernel import GatewayKernel
from epic.agent.gateway.plans.failures import Failure
from epic.agent.gateway.plans.parts import carry_out
from epic.agent.gateway.plans.plan import Action, DeleteEndpoints, DeleteTunnel, SetEndpoints, SetTunnel
from epic.agent.netlink.monitor import Changes
from epic.agent.netlink.objects import Link, Netlink
from epic.agent.runtime.store import Saver
from epic.agent.runtime.worker import Worker
from epic.agent.settings import UnderlaySettings

BACKENDS = [IPv4Address("192.0.2.0") + n for n in range(5000)]


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker("kernel")
    yield worker
    worker.close()


class Kernel:
    """Notes what each call is given, lets what else waits for its thread be noted, and refuses `refused`."""

    def __init__(self, worker: Worker) -> None:
        self.calls: list[list[Action]] = []
        self.between: list[int] = []
        self.refused: set[int] = set()
        self._worker = worker

    def apply(self, actions: list[Action]) -> list[Failure]:
        self.calls.append(actions)
        return [Failure(a, "no room") for a in actions if isinstance(a, SetEndpoints) and self._refuses(a)]

    def _refuses(self, action: SetEndpoints) -> bool:
        return not self.refused.isdisjoint(map(int, (address for _, address in action.endpoints)))

    async def do_something_else(self) -> None:
        while True:
            await self._worker.run(lambda: self.between.append(len(self.calls)))


def made(actions: list[Action]) -> list[object]:
    """Tunnels and endpoints, one by one."""
    found: list[object] = []
    for action in actions:
        match action:
            case SetEndpoints(_, endpoints):
                found += endpoints
            case DeleteEndpoints(keys):
                found += sorted(keys)
            case _:
                found.append(action)
    return found


async def test_actions_are_carried_out_in_parts_and_in_order(worker: Worker) -> None:
    kernel = Kernel(worker)
    tunnels: list[Action] = [SetTunnel(tunnel(number)) for number in range(1, 2001)]
    endpoints = SetEndpoints(WEB, {(INSIDE, address): VIA for address in BACKENDS})
    gone = [DeleteTunnel(number) for number in range(3000, 3100)]
    others = asyncio.create_task(kernel.do_something_else())
    assert await carry_out(worker, kernel.apply, [*tunnels, endpoints, *gone]) == []
    others.cancel()
    assert made([action for call in kernel.calls for action in call]) == made([*tunnels, endpoints, *gone])
    assert max(len(made(call)) for call in kernel.calls) <= 1100
    assert len(kernel.calls) >= 2000 // 32 + 5000 // 1024
    assert len(set(kernel.between)) > len(kernel.calls) // 2, "others come in between"


async def test_endpoints_that_nobody_needs_go_in_parts(worker: Worker) -> None:
    kernel = Kernel(worker)
    keys = frozenset((INSIDE, address) for address in BACKENDS)
    await carry_out(worker, kernel.apply, [DeleteEndpoints(keys)])
    assert [len(made(call)) for call in kernel.calls] == [1024] * 4 + [5000 - 4096]
    assert {key for call in kernel.calls for key in made(call)} == keys


async def test_what_fails_is_told_once_as_it_was_asked_for(worker: Worker) -> None:
    kernel = Kernel(worker)
    kernel.refused = {int(BACKENDS[0]), int(BACKENDS[4000])}
    few = SetEndpoints("shop.other", {(INSIDE, BACKENDS[-1]): VIA})
    many = SetEndpoints(WEB, {(INSIDE, address): VIA for address in BACKENDS})
    assert await carry_out(worker, kernel.apply, [few, many]) == [Failure(many, "no room")]


def test_after_a_change_of_routes_tunnels_are_looked_at_in_parts(tmp_path: Path) -> None:
    programs = Programs()
    kernel = GatewayKernel(programs, UnderlaySettings(interface="none"), tmp_path)  # type: ignore[arg-type]
    try:
        kernel.apply([SetTunnel(tunnel(number)) for number in range(1, 1001)])
        kernel.pending.add(Changes(routes={2}))
        kernel.observe(whole=False)
        programs.asked.clear()
        parts = []
        more = True
        while more:
            more = kernel.check_routes()
            parts.append(len(programs.asked))
            programs.asked.clear()
        assert sum(parts) == 1000
        assert max(parts) <= 128
        assert kernel.stale == set()
        kernel.apply([DeleteTunnel(1)])
        assert not kernel.check_routes()
        assert programs.asked == []
    finally:
        kernel.close()


def test_an_interface_of_an_instance_concerns_no_tunnels_but_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node has a thousand of them, and each says a lot about itself when it comes."""
    programs, links = Programs(), {"lo": Link(1, 65536, "", up=True)}
    monkeypatch.setattr(Netlink, "links", lambda _: dict(links))
    kernel = GatewayKernel(programs, UnderlaySettings(interface="none"), tmp_path)  # type: ignore[arg-type]

    def asked_after(changes: Changes) -> set[int]:
        kernel.pending.add(changes)
        kernel.observe(whole=False)
        programs.asked.clear()
        while kernel.check_routes():
            pass
        return set(programs.asked)

    try:
        asked_after(Changes(lost=True))
        other = tunnel(8, gateway="shop.other")
        kernel.apply([SetTunnel(tunnel(7)), SetTunnel(other)])
        come = Changes(links={12}, addresses={12}, routes={12})
        links[INTERFACE] = Link(12, 1452, "veth", up=True)
        assert asked_after(come) == set()
        assert kernel.stale == {7}, "it rests on an interface that was not there"
        assert asked_after(come) == set()
        del links[INTERFACE]
        links["up1"] = Link(13, 1500, "", up=True)
        assert asked_after(Changes(links={12})) == {7}
        assert asked_after(Changes(routes={12, 13})) == asked_after(Changes(routes={0})) == {7, 8}
        assert asked_after(Changes(addresses={13})) == asked_after(Changes(links={13})) == {7, 8}
    finally:
        kernel.close()


class Programs:
    """Takes all tunnels, and knows of no far end; notes which were asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def set_tunnel(self, tunnel: object) -> None:
        """It is there."""

    def delete_tunnel(self, id_: int) -> None:
        """It is gone."""

    def peer(self, id_: int) -> None:
        self.asked.append(id_)


async def test_many_lists_of_siblings_are_read_in_parts_and_taken_in_at_once(tmp_path: Path) -> None:
    cache, saver = ResourceCache(), Saver(tmp_path)
    intake = Intake(cache, saver, lambda: None, lambda: None)
    for type_url in TYPES:
        await intake.apply(type_url, {}, [])
    gateways = [f"shop.g{number}" for number in range(1000)]
    lists = {gateway: versioned(siblings_message(gateway=gateway)) for gateway in gateways}
    seen: list[int] = []

    async def look() -> None:
        while True:
            seen.append(len(cache.siblings))
            await asyncio.sleep(0)

    others = asyncio.create_task(look())
    await intake.apply(SIBLINGS, lists, [])
    others.cancel()
    saver.close()
    assert sorted(cache.siblings) == sorted(gateways)
    assert set(seen) == {0}
    assert len(seen) >= 10


async def test_a_list_that_makes_no_sense_is_refused_among_many(tmp_path: Path) -> None:
    cache, saver = ResourceCache(), Saver(tmp_path)
    intake = Intake(cache, saver, lambda: None, lambda: None)
    lists = {g: versioned(siblings_message(gateway=g)) for g in ("shop.a", "shop.b")}
    wrong = {"shop.c": versioned(siblings_message(gateway="shop.other"))}
    await intake.apply(SIBLINGS, {**lists, **wrong}, [])
    saver.close()
    assert sorted(cache.siblings) == ["shop.a", "shop.b"]
    assert [name for _, name in cache.refused] == ["shop.c"]
