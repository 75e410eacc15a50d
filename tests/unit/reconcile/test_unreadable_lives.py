# SPDX-License-Identifier: Apache-2.0
"""Objects that cannot be read are not gone: nobody's instance, tunnel or list changes because of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from damage import damage, wait_until_unreadable, write_newer
from life_model import Model
from life_plant import Clock, FullDisk, use_clock

from epic.api.context import Context
from epic.model.base import Resource
from epic.model.instances import ProxyInstance
from epic.model.nodes import Quarantine
from epic.model.resources import Account, GWEndpointSlice, GWProxy, GWRoute, LBServiceGroup, Node, Tunnel
from epic.model.runs import Run
from epic.model.siblings import Siblings
from epic.reconcile.tunnels.tunnelling import replan
from epic.runs.records import Records
from epic.store.location import StoreLocation
from epic.store.queue import enqueue

KINDS: dict[str, type[Resource]] = {
    kind.kind: kind
    for kind in (Account, GWProxy, GWRoute, GWEndpointSlice, LBServiceGroup, Node, Siblings, Tunnel)
}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    """Two gateways of account a and one of b, each with two instances that serve, on three nodes."""
    clock = Clock()
    use_clock(monkeypatch, clock)
    model = Model(tmp_path, clock)
    for account in ("a", "a", "b"):
        model.create(account)
    model.settle()
    model.pass_time(61)
    model.settle()
    assert {i.phase for p in model.store.list(GWProxy) for i in p.status.instances} == {"Serving"}
    assert model.store.list(Tunnel)
    yield model
    model.store.close()


def reopen(model: Model, path: Path) -> None:
    """The control plane starts anew."""
    model.store.close()
    model.store = FullDisk(StoreLocation(sqlite=path / "epic.db"))
    model.records = Records(model.store)
    model.context = Context(store=model.store, inside_pool=model.pool, run_events=model.context.run_events)
    model.restart_control()


def has(model: Model) -> dict[str, Any]:
    """What there is of gateways: on nodes, and in the store."""
    store, nodes = model.store, model.epic.values()
    proxies = {proxy.id: proxy for proxy in store.list(GWProxy)}
    return {
        "units": {n.name: {g: replace(unit) for g, unit in n.units.items()} for n in nodes},
        "announced": {n.name: dict(n.announced) for n in nodes},
        "tunnels": {t.name: t.spec for t in store.list(Tunnel) if not t.deleting},
        "lists": {(s.account, s.name): s.spec.nodes for s in store.list(Siblings)},
        "instances": {id_: tuple(map(_stage, p.status.instances)) for id_, p in proxies.items()},
        "endpoints": {id_: p.spec.gue_tunnel_endpoints for id_, p in proxies.items()},
        "conditions": {id_: _second_chance(p) for id_, p in proxies.items()},
        "quarantines": store.list(Quarantine),
    }


def _stage(instance: ProxyInstance) -> tuple[object, ...]:
    return (
        instance.node,
        instance.inside_address,
        instance.phase,
        instance.goal,
        instance.unit,
        instance.reason,
    )


def _second_chance(proxy: GWProxy) -> list[str]:
    return [c.reason for c in proxy.status.conditions if c.type == "SecondChance"]


def work_on(model: Model) -> None:
    """Time passes, everything is planned, and runs reach all nodes."""
    for account in ("a", "b"):
        names = {p.name for p in model.store.list(GWProxy, account)}
        with model.context.current.transaction() as (transaction, world):
            replan(transaction, world, account, names)
    with model.store.transaction() as transaction:
        enqueue(transaction, model.epic)
    for _ in range(6):
        model.reconcile()
        model.begin_runs()
        for name in list(model.executions):
            model.end_run(name)
        model.pass_time(11)
        for node in model.epic.values():
            model.take_report(node)
        model.reconcile()


def without(found: dict[str, Any], broken: Resource) -> dict[str, Any]:
    """The same but for what the broken object would have said itself."""
    found = {part: dict(of) if isinstance(of, dict) else of for part, of in found.items()}
    name = (broken.account, broken.name)
    parts = {"GWProxy": ("instances", "endpoints", "conditions"), "Siblings": ("lists",)}
    for part in parts.get(broken.kind, ()):
        found[part].pop(name, None)
    if broken.kind == "Tunnel":
        found["tunnels"].pop(broken.name, None)
    return found


@each_kind
@pytest.mark.parametrize("restarted", [False, True], ids=["at once", "after a restart"])
def test_nothing_changes_because_of_an_object_that_cannot_be_read(
    model: Model, tmp_path: Path, kind: type[Resource], restarted: bool
) -> None:
    broken = next(obj for obj in model.store.list(kind) if obj.account in {"a", ""})
    before = without(has(model), broken)
    if restarted:
        damage(model.store, broken)
        reopen(model, tmp_path)
    else:
        write_newer(model.store, broken)
    wait_until_unreadable(model.store, kind)
    work_on(model)
    assert without(has(model), broken) == before
    assert not [run.name for run in model.store.list(Run) if run.status.state == "running"]
    assert len(model.store.list(Run)) < 30, "runs that do nothing are asked for again and again"


def test_a_node_is_not_drained_while_a_gateway_that_cannot_be_read_may_be_on_it(
    model: Model, tmp_path: Path
) -> None:
    broken = model.store.list(GWProxy)[0]
    here = {instance.node for instance in broken.status.instances}
    damage(model.store, broken)
    reopen(model, tmp_path)
    for node in model.store.list(Node):
        model.maintain(node.name, drain=True)
    work_on(model)
    shown = {
        node.name: next((c.status, c.reason) for c in node.status.conditions if c.type == "Drained")
        for node in model.store.list(Node)
    }
    assert {shown[name][0] for name in here} == {"False"}
    assert "GatewayUnreadable" in {shown[name][1] for name in here}, "the others have more that serves"
    (free,) = model.epic.keys() - here
    assert shown[free][1] != "GatewayUnreadable"
