"""EPIC nodes. Registering the same node again changes nothing."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Response

from epic.api.bodies import NodeBody, check_object_name
from epic.api.context import Ctx, admin_only
from epic.api.gateways import rebalance
from epic.api.replies import PREFIX, deleted, found, listed, shown
from epic.api.tunnelling import replan
from epic.errors import Conflict
from epic.model.base import Metadata
from epic.model.resources import GWProxy, Node
from epic.store.interface import Transaction
from epic.store.queue import enqueue

router = APIRouter(prefix="/nodes", tags=["nodes"], dependencies=[Depends(admin_only)])


def _path(name: str) -> str:
    return f"{PREFIX}/nodes/{name}"


def _body(node: Node) -> dict[str, Any]:
    return {"link": {"self": _path(node.name)}, "node": shown(node)}


@router.get("")
def list_all(ctx: Ctx) -> dict[str, Any]:
    """All EPIC nodes."""
    return listed(f"{PREFIX}/nodes", ctx.store.list(Node))


@router.get("/{name}")
def read(ctx: Ctx, name: str) -> dict[str, Any]:
    """An EPIC node."""
    return _body(ctx.store.get(Node, "", name))


@router.put("/{name}", status_code=302)
def register(ctx: Ctx, name: str, body: NodeBody) -> Response:
    """Register a node or change it; gateways that have too few instances get one there."""
    check_object_name(name, "the node's name in the path")
    spec = body.node.spec
    with ctx.store.transaction() as transaction:
        for other in transaction.list(Node):
            if other.name != name and other.spec.address == spec.address:
                raise Conflict(f"node.spec.address: {spec.address} is the address of node {other.name!r}")
        stored = transaction.find(Node, "", name)
        if stored is None:
            node = transaction.create(Node(metadata=Metadata(name=name), spec=spec))
        else:
            node = transaction.update(stored.model_copy(update={"spec": spec}))
            if stored.spec != spec:
                _tell_gateways(transaction, name)
        if stored is None or stored.spec != spec:
            rebalance(transaction, ctx.inside_pool)
    return found(_path(name), _body(node))


@router.delete("/{name}")
def delete(ctx: Ctx, name: str) -> dict[str, str]:
    """Forget a node; its instances move to others where there is room."""
    with ctx.store.transaction() as transaction:
        if transaction.find(Node, "", name) is not None:
            transaction.delete(Node, "", name)
            rebalance(transaction, ctx.inside_pool)
    return deleted()


def _tell_gateways(transaction: Transaction, node: str) -> None:
    # Its address is in their tunnels, its MTU in their instances.
    proxies = [p for p in transaction.list(GWProxy) if any(i.node == node for i in p.status.instances)]
    for account in {proxy.account for proxy in proxies}:
        replan(transaction, account, {proxy.name for proxy in proxies if proxy.account == account})
    if proxies:
        enqueue(transaction, [node])
