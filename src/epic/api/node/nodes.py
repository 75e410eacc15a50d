# SPDX-License-Identifier: Apache-2.0
"""EPIC nodes: registering, maintenance, removal. Registering the same node again changes nothing."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from fastapi import APIRouter, Depends, Response

from epic.api.bodies import MaintenanceBody, NodeBody, of_one_drain
from epic.api.context import Context, Ctx, admin_only
from epic.api.metadata import check_name, check_version
from epic.api.precondition import IfMatch
from epic.api.replies import PREFIX, deleted, found, shown
from epic.api.unreadable import discard_unreadable, to_replace
from epic.errors import Conflict
from epic.heartbeats import Heard
from epic.ipam.networks import node_addresses
from epic.ipam.prefixes import check_node_addresses
from epic.kinds.registry import KINDS, NODE
from epic.kinds.strategy import prepare_for_update
from epic.lifecycle.digest import Placed, node_digest
from epic.lifecycle.nodes import phase_counts
from epic.model.base import Metadata, now
from epic.model.nodes import NodeRevocation, NodeStatus
from epic.model.resources import GWProxy, Node, ServicePrefix
from epic.model.values.naming import GatewayId
from epic.reconcile.revocation import revoke
from epic.reconcile.siblings import forget_node
from epic.reconcile.tunnels.tunnelling import Budget, remember
from epic.reconcile.world import World
from epic.store.interface import Reader, Transaction
from epic.store.queue import enqueue

router = APIRouter(prefix="/nodes", tags=["nodes"], dependencies=[Depends(admin_only)])


def _path(name: str) -> str:
    return f"{PREFIX}/nodes/{name}"


def _placed(reader: Reader) -> dict[str, list[Placed]]:
    """The instances on each node."""
    placed: dict[str, list[Placed]] = {}
    for proxy in reader.list(GWProxy):
        for instance in proxy.status.instances:
            placed.setdefault(instance.node, []).append(Placed(str(proxy.id), instance))
    return placed


def _shown(ctx: Context, node: Node, placed: list[Placed]) -> dict[str, Any]:
    wire = shown(_as_heard(node, ctx.live.heartbeats.of(node.name)))
    wire["status"]["instances"] = phase_counts(placed)
    return wire


def _as_heard(node: Node, heard: Heard) -> Node:
    """The node with the time of its newest report, which is in memory only."""
    noted = node.status.last_report
    if noted is None or heard.last is None or heard.last <= noted:
        return node
    return node.model_copy(update={"status": node.status.model_copy(update={"last_report": heard.last})})


def _body(ctx: Context, node: Node) -> dict[str, Any]:
    placed = _placed(ctx.store).get(node.name, [])
    return {"link": {"self": _path(node.name)}, "node": _shown(ctx, node, placed)}


@router.get("")
def list_all(ctx: Ctx) -> dict[str, Any]:
    """All EPIC nodes."""
    placed = _placed(ctx.store)
    items = [_shown(ctx, node, placed.get(node.name, [])) for node in ctx.store.list(Node)]
    return {"link": {"self": f"{PREFIX}/nodes"}, "items": items}


@router.get("/{name}")
def read(ctx: Ctx, name: str) -> dict[str, Any]:
    """An EPIC node: its phase and conditions, and how many instances of each phase are there."""
    return _body(ctx, ctx.store.get(Node, "", name))


@router.put("/{name}", status_code=302)
def register(ctx: Ctx, name: str, body: NodeBody, if_match: IfMatch) -> Response:
    """Register a node or change it; gateways that have too few instances get one there.

    One that was removed before gets a run, which removes what units it has of that time. Whether it is in
    maintenance stays as it is unless `schedulable` or `drain` is given.
    """
    KINDS.check_name(Node, name, "the node's name in the path")
    check_name(body.node.metadata, name, "node")
    spec = body.node.spec
    with ctx.current.transaction() as (transaction, world):
        for other in transaction.list(Node):
            if other.name != name and other.spec.address == spec.address:
                raise Conflict(f"node.spec.address: {spec.address} is the address of node {other.name!r}")
        stored = to_replace(transaction, Node, "", name)
        if_match.check(stored)
        # What was right once stays so: a pool that came later must not hold up other changes.
        if stored is None or [*node_addresses(stored.spec)] != [*node_addresses(spec)]:
            check_node_addresses(spec, transaction.list(ServicePrefix))
        if stored is None:
            status = NodeStatus(returning=transaction.find(NodeRevocation, "", name) is not None)
            node = transaction.create(Node(metadata=Metadata(name=name), spec=spec, status=status))
            if status.returning:
                # It may have units of the time before, and a run for that time may still reach it.
                enqueue(transaction, [name])
        else:
            _refuse_if_removing(stored)
            check_version(body.node.metadata, stored)
            given = stored.model_copy(update={"spec": spec})
            node = transaction.update(prepare_for_update(NODE, given, stored))
            if _network(stored) != _network(node):
                _tell_gateways(transaction, world, name)
    return found(_path(name), _body(ctx, node), body.unknown)


@router.put("/{name}/maintenance", status_code=302)
def maintain(ctx: Ctx, name: str, body: MaintenanceBody, if_match: IfMatch) -> Response:
    """Say whether a node takes new instances, and whether those that it has are to leave service.

    `unheard-ok`, of one drain: they leave it though no router hears those that take their place.
    """
    given = of_one_drain(body.maintenance.model_dump(exclude_unset=True))
    with ctx.store.transaction() as transaction:
        stored = transaction.get(Node, "", name)
        if_match.check(stored)
        _refuse_if_removing(stored)
        spec = stored.spec.model_copy(update=given)
        node = transaction.update(stored.model_copy(update={"spec": spec}))
    return found(_path(name), _body(ctx, node))


@router.put("/{name}/accept-drop", status_code=302)
def accept_drop(ctx: Ctx, name: str, if_match: IfMatch) -> Response:
    """Let a node drop what it holds back, since it would be more than half of its gateways at once."""
    with ctx.store.transaction() as transaction:
        stored = transaction.get(Node, "", name)
        if_match.check(stored)
        digest = node_digest(stored.status, _placed(transaction).get(name, []))
        status = stored.status.model_copy(update={"meant_digest": digest})
        node = transaction.update(stored.model_copy(update={"status": status}))
    return found(_path(name), _body(ctx, node))


@router.delete("/{name}")
def delete(ctx: Ctx, name: str, if_match: IfMatch, force: bool = False) -> dict[str, str]:
    """Remove a node: its instances move to others and leave it, then it is told to clean up.

    `force` is for a node that is lost: nobody waits for it, and what it had is kept from others for a while.
    """
    if not if_match.is_given and discard_unreadable(ctx, Node, "", name):
        return deleted()
    with ctx.store.transaction() as transaction:
        node = transaction.find(Node, "", name)
        if_match.check(node)
        if node is not None:
            metadata = node.metadata.model_copy(
                update={"deletion_timestamp": node.metadata.deletion_timestamp or now()}
            )
            status = node.status.model_copy(update={"lost": node.status.lost or force})
            transaction.update(node.model_copy(update={"metadata": metadata, "status": status}))
            if force:
                revoke(transaction, name)
                forget_node(transaction, name)
    return deleted()


def _refuse_if_removing(node: Node) -> None:
    if node.deleting:
        raise Conflict(f"node {node.name!r} is being removed; register it again when it is gone")


def _network(node: Node) -> tuple[object, ...]:
    return node.spec.address, node.spec.underlay_mtu


def _tell_gateways(transaction: Transaction, world: World, node: str) -> None:
    # Its address is in their tunnels, its MTU in their instances.
    gateways: defaultdict[str, set[str]] = defaultdict(set)
    for placed in world.placed(node):
        gateway = GatewayId.parse(placed.gateway)
        gateways[gateway.account].add(gateway.proxy)
    budget = Budget()
    for account, names in gateways.items():
        remember(transaction, world, account, names, budget)
    if gateways:
        enqueue(transaction, [node])
