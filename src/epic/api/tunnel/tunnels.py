# SPDX-License-Identifier: Apache-2.0
"""What an agent on a workload node asks for: its tunnels with their keys, at once and on each change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from epic.api.context import Context, Ctx
from epic.api.sse import event, event_stream
from epic.ipam.networks import inside6
from epic.live import Place
from epic.model.resources import Account, GWEndpointSlice, GWRoute, Node, Tunnel
from epic.model.values.addresses import Address, order
from epic.model.values.naming import GUE_PORT, GatewayId
from epic.store.interface import Change, Store
from epic.tunnels import WorkloadNode, key_of, proxy_services, workload_endpoints

router = APIRouter(tags=["tunnels"])
_CAUSES = {Tunnel.kind, Node.kind, GWRoute.kind, GWEndpointSlice.kind}


@router.get("/accounts/{account}/tunnels")
def read(ctx: Ctx, account: str, cluster: str, node: str, watch: bool = False) -> Response:
    """The tunnels that end on a node of a client's cluster; `watch` sends them again when they change."""
    ctx.store.get(Account, "", account)
    workload = WorkloadNode(cluster, node)
    if watch:
        return event_stream(_events(ctx, account, workload), ctx.closing)
    # The reply holds keys.
    return JSONResponse(tunnels_of(ctx, account, workload), headers={"Cache-Control": "no-store"})


def tunnels_of(ctx: Context, account: str, workload: WorkloadNode) -> dict[str, Any]:
    """The whole reply for one node; `revision` is what the node says when it has carried it out."""
    reader = ctx.store
    place = Place(account, workload.cluster_id, workload.name)
    noted = ctx.live.is_listed(place)
    revision, found = _ending_at(reader, account, workload)
    if found and not noted:
        # What is read from now on is waited for when it is deleted; what was read before may be gone by now.
        ctx.live.note_listing(place)
        revision, found = _ending_at(reader, account, workload)
    tunnels = [tunnel for tunnel in found if not tunnel.deleting]
    reply: dict[str, Any] = {"revision": revision, "tunnels": []}
    # The newest deletion is part of the reply: one that changes nothing else must be acknowledged too.
    reply["deleted"] = max((t.metadata.resource_version for t in found if t.deleting), default=0)
    if not tunnels:
        return reply
    nodes = {node.name: node for node in reader.list(Node)}
    routes = reader.list(GWRoute, account)
    slices = reader.list(GWEndpointSlice, account)
    endpoints = {
        proxy: _endpoints(workload_endpoints(proxy_services(proxy, routes), slices), workload)
        for proxy in {tunnel.spec.proxy for tunnel in tunnels}
    }
    reply["tunnels"] = [
        {
            **_tunnel(tunnel, nodes[tunnel.spec.epic_node]),
            "inside-address6": str(inside6(ctx.pools.inside6, tunnel.spec.inside_address)),
            "endpoints": endpoints[tunnel.spec.proxy],
        }
        for tunnel in sorted(tunnels, key=lambda tunnel: int(tunnel.name))
        if tunnel.spec.epic_node in nodes
    ]
    return reply


def _ending_at(reader: Store, account: str, workload: WorkloadNode) -> tuple[int, list[Tunnel]]:
    # The revision first: what is read afterwards holds at least all changes until then.
    revision = reader.revision
    tunnels = reader.list(Tunnel, account)
    return revision, [t for t in tunnels if (t.spec.cluster_id, t.spec.node_name) == workload]


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two replies ask the same of the node."""
    return {**one, "revision": 0} == {**other, "revision": 0}


def _endpoints(found: dict[WorkloadNode, Any], workload: WorkloadNode) -> list[str]:
    """Their own addresses: what Envoy may know them by instead does not leave the EPIC cluster."""
    return [str(address) for address in sorted(found[workload][1], key=order)] if workload in found else []


def _tunnel(tunnel: Tunnel, epic_node: Node) -> dict[str, Any]:
    spec = tunnel.spec
    return {
        "id": int(tunnel.name),
        "gateway": str(GatewayId(tunnel.account, spec.proxy)),
        "service": spec.service,
        "inside-address": str(spec.inside_address),
        "epic-address": str(epic_node.spec.address),
        "epic-port": GUE_PORT,
        "keys": [key.wire() for key in spec.keys],
        "signing-epoch": spec.signing_epoch,
    }


async def follow(ctx: Context, account: str, workload: WorkloadNode) -> AsyncGenerator[dict[str, Any], None]:
    """The reply for one node, at once and each time it has changed, for ever."""

    def make() -> dict[str, Any]:
        return tunnels_of(ctx, account, workload)

    shared = ctx.replies.of(account, workload)
    # The revision first: what changes while the first answer is made is seen again, never missed.
    since = await asyncio.to_thread(lambda: ctx.store.revision)
    sent = await shared.since(since, make)
    yield sent
    addresses: dict[str, Address] = {}
    async for change in ctx.store.watch(since):
        if _may_change(change, account, workload, addresses):
            current = await shared.since(change.revision, make)
            if not _same(current, sent):
                sent = current
                yield sent


def _may_change(change: Change, account: str, workload: WorkloadNode, addresses: dict[str, Address]) -> bool:
    """Whether the reply may be another; `addresses` are the EPIC nodes' as far as they were heard of.

    Most changes are nodes' reports and other nodes' keys: nobody is to read everything again for them.
    """
    found = change.object
    if change.kind == Node.kind:
        before = addresses.pop(change.name, None)
        if isinstance(found, Node):
            addresses[change.name] = found.spec.address
        return before is None or before != addresses.get(change.name)
    if change.account not in {account, ""}:
        return False
    if isinstance(found, Tunnel):
        return key_of(found).workload == workload
    return change.kind in _CAUSES


async def _events(ctx: Context, account: str, workload: WorkloadNode) -> AsyncGenerator[bytes, None]:
    async with aclosing(follow(ctx, account, workload)) as replies:
        async for reply in replies:
            yield event("tunnels", reply)
