# SPDX-License-Identifier: Apache-2.0
"""Clients' nodes, and which of them have stopped reporting: their agent is down, or its password is wrong."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from epic.api.account.existence import check_account
from epic.api.context import Ctx, admin_only
from epic.live import Place, workload_place
from epic.model.base import now
from epic.model.resources import Tunnel

router = APIRouter(tags=["tunnels"])


@router.get("/accounts/{account}/workload-nodes")
def of_account(ctx: Ctx, account: str) -> dict[str, Any]:
    """The account's nodes that tunnels lead to; `silent` is for how many seconds nothing was heard of one."""
    check_account(ctx.store, account)
    return _shown(ctx, ctx.store.list(Tunnel, account))


@router.get("/workload-nodes", dependencies=[Depends(admin_only)])
def of_all(ctx: Ctx) -> dict[str, Any]:
    """All accounts' nodes that tunnels lead to."""
    return _shown(ctx, ctx.store.list(Tunnel))


def _shown(ctx: Ctx, tunnels: list[Tunnel]) -> dict[str, Any]:
    found: dict[Place, list[Tunnel]] = {}
    for tunnel in tunnels:
        if not tunnel.deleting:
            found.setdefault(workload_place(tunnel), []).append(tunnel)
    time = now()
    items = []
    for place, own in sorted(found.items()):
        # Reports are kept in memory: silence is not longer than epic-control runs, or the node has tunnels.
        _, silent = ctx.live.applied(place)
        known = (time - min(tunnel.spec.signing_since for tunnel in own)).total_seconds()
        items.append(
            {
                "account": place.account,
                "cluster": place.cluster,
                "node": place.node,
                "tunnels": len(own),
                "silent": round(max(0.0, min(silent, known)), 1),
            }
        )
    return {"items": items}
