# SPDX-License-Identifier: Apache-2.0
"""What gateways contribute to nodes: large ones are built beside the event loop, and hold up no other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from ads_site import eventually, proxy, route, tunnel

from epic.ads.desired import parts
from epic.ads.desired.assemble import Accepted, GatewayParts
from epic.ads.desired.objects import Inputs, ObjectIndex
from epic.ads.desired.parts import Parts
from epic.ads.snapshot import INSTANCE, TUNNEL, Versioned
from epic.ipam.networks import DEFAULT_POOLS, Pools
from epic.model.base import Resource, now
from epic.model.resources import GWEndpointSlice, GWProxy
from epic.model.values.naming import GatewayId
from epic.store.interface import Change

LARGE, SMALL = GatewayId("root", "U1"), GatewayId("root", "U2")


def index_of(*objects: Resource) -> ObjectIndex:
    found = ObjectIndex()
    for obj in objects:
        found.apply(Change(1, obj.kind, obj.account, obj.name, obj))
    return found


def slice_of(count: int) -> GWEndpointSlice:
    endpoints = [{"addresses": [f"10.0.{n // 250}.{n % 250 + 1}"]} for n in range(count)]
    spec = {"parentRef": {"uid": "S1"}, "endpoints": endpoints, "ports": [{"port": 80}]}
    return GWEndpointSlice.model_validate({"metadata": {"name": "E1", "namespace": "root"}, "spec": spec})


def inputs(count: int, gateway: GWProxy | None = None) -> Inputs:
    gateway = gateway or proxy()
    found = index_of(gateway, route(), slice_of(count)).inputs(gateway.id)
    assert found is not None
    return found


def small() -> Inputs:
    gateway = proxy()
    return inputs(
        1, gateway.model_copy(update={"metadata": gateway.metadata.model_copy(update={"name": "U2"})})
    )


class Slow:
    """Building of large parts that takes until it is let; `begun` are those that were begun."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun: list[int] = []
        self.fault: Exception | None = None
        self.tunnels: set[str] = set()

    def build(self, given: Inputs, _: Accepted | None, __: Pools) -> GatewayParts:
        count = sum(len(piece.spec.endpoints) for piece in given.slices)
        if count > 1000:
            self.begun.append(count)
            assert threading.current_thread() is not threading.main_thread()
            assert self.go.wait(10)
        if self.fault is not None:
            raise self.fault
        part = {INSTANCE: {str(given.proxy.id): Versioned(str(count), INSTANCE, b"")}}
        return GatewayParts({"epic1": part | {TUNNEL: dict.fromkeys(self.tunnels)} if self.tunnels else part})


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    slow = Slow()
    monkeypatch.setattr(parts, "gateway_parts", slow.build)
    yield slow
    slow.go.set()


class Told:
    def __init__(self) -> None:
        self.of: list[tuple[GatewayId, set[str]]] = []
        self.parts = Parts(DEFAULT_POOLS, lambda gateway, changes: self.of.append((gateway, set(changes))))

    def versions(self) -> dict[str, str]:
        found = [part[INSTANCE] for _, part in self.parts.on("epic1")]
        return {name: r.version for resources in found for name, r in resources.items()}


async def test_a_large_gateway_is_built_aside_and_holds_up_no_other(slow: Slow) -> None:
    told = Told()
    assert told.parts.want(inputs(1200), None) == {}
    await eventually(lambda: slow.begun)
    assert told.parts.is_building(LARGE)
    assert told.parts.want(small(), None).keys() == {"epic1"}
    assert told.versions() == {str(SMALL): "0"}
    slow.go.set()
    await eventually(lambda: told.of == [(LARGE, {"epic1"})])
    assert told.versions() == {str(LARGE): "1200", str(SMALL): "0"}
    assert not told.parts.is_building(LARGE)


async def test_what_changes_while_a_gateway_is_built_is_built_at_the_end_and_once(slow: Slow) -> None:
    told = Told()
    for count in (1200, 1300, 1400):
        told.parts.want(inputs(count), None)
    slow.go.set()
    await eventually(lambda: told.of)
    newest = inputs(1400)
    told.parts.want(newest, None)
    await eventually(lambda: len(told.of) == 2)
    told.parts.want(newest, None)
    assert (slow.begun, told.versions()) == ([1200, 1400], {str(LARGE): "1400"})


async def made_anew_while_built(slow: Slow) -> Told:
    """A gateway that takes long to build, and is made anew as a small one before that is done."""
    told = Told()
    told.parts.want(inputs(1200), None)
    await eventually(lambda: slow.begun)
    anew = proxy()
    anew = anew.model_copy(update={"status": anew.status.model_copy(update={"service": 9})})
    told.parts.want(inputs(2, anew), None)
    slow.go.set()
    return told


async def test_a_gateway_that_is_deleted_or_made_anew_gets_nothing_of_the_earlier_one(slow: Slow) -> None:
    told = await made_anew_while_built(slow)
    assert told.versions() == {str(LARGE): "2"}
    told.parts.want(inputs(1300), None)
    assert told.parts.forget(LARGE) == {"epic1": {INSTANCE: {str(LARGE): None}}}
    await eventually(lambda: len(asyncio.all_tasks()) == 1)
    assert (told.of, told.versions()) == ([], {})


async def test_a_tunnel_may_be_given_while_and_after_it_is_built_in_and_not_once_it_is_deleted(
    slow: Slow,
) -> None:
    def may_give(name: str) -> bool:
        return told.parts.may_give(LARGE, "epic1", name)

    told, given, other = Told(), tunnel(), tunnel()
    deleted = other.model_copy(
        update={"metadata": other.metadata.model_copy(update={"name": "8", "deletion_timestamp": now()})}
    )
    wanted = index_of(proxy(), route(), slice_of(1200), given, deleted).inputs(LARGE)
    assert wanted is not None
    assert not may_give("7")
    told.parts.want(wanted, None)
    assert may_give("7")
    assert not may_give("8")
    slow.tunnels = {"7"}
    slow.go.set()
    await eventually(lambda: told.of)
    assert not told.parts.is_building(LARGE)
    assert may_give("7")
    told.parts.forget(LARGE)
    assert not may_give("7")


async def test_what_is_built_at_once_is_not_replaced_by_what_was_begun_for_an_earlier_gateway(
    slow: Slow,
) -> None:
    told = await made_anew_while_built(slow)
    await eventually(lambda: len(asyncio.all_tasks()) == 1)
    assert (told.of, told.versions()) == ([], {str(LARGE): "2"})


async def test_what_fails_aside_is_raised_once_and_tried_again(slow: Slow) -> None:
    told, large = Told(), inputs(1200)
    slow.fault = ValueError("no such thing")
    slow.go.set()
    told.parts.want(large, None)
    await eventually(lambda: told.of == [(LARGE, set())])
    with pytest.raises(ValueError, match="no such thing"):
        told.parts.want(large, None)
    slow.fault = None
    told.parts.want(large, None)
    await eventually(lambda: told.versions() == {str(LARGE): "1200"})


def test_the_ports_of_a_slice_are_gone_through_when_it_changes_and_not_with_its_gateway() -> None:
    found = index_of(proxy(), route(), slice_of(1))
    first = found.inputs(LARGE)
    found.apply(Change(2, GWProxy.kind, "root", "U1", proxy("other")))
    second = found.inputs(LARGE)
    assert first is not None
    assert second is not None
    assert second.ports["E1"] is first.ports["E1"]
    found.apply(Change(3, GWEndpointSlice.kind, "root", "E1", None))
    gone = found.inputs(LARGE)
    assert gone is not None
    assert not gone.ports
