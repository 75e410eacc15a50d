# SPDX-License-Identifier: Apache-2.0
"""What an agent on a workload node asks for: its tunnels with their keys, at once and on each change."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from epic.api.account.existence import check_account
from epic.api.context import Context, Ctx
from epic.api.sse import event_stream
from epic.model.resources import Account, AccountSpec
from epic.tunnels import WorkloadNode

router = APIRouter(tags=["tunnels"])


@router.get("/accounts/{account}/tunnels")
async def read(ctx: Ctx, account: str, cluster: str, node: str, watch: bool = False) -> Response:
    """The tunnels that end on a node of a client's cluster; `watch` sends them again when they change.

    An account may have twice as many of these streams as workload nodes, and four of one node: a fifth ends
    the first.
    """
    check_account(ctx.store, account)
    found = ctx.store.find_readable(Account, "", account)
    limits = found.spec if found else AccountSpec()
    workload = WorkloadNode(cluster, node)
    with ctx.workload_lists.of(account) as lists:
        if not watch:
            # The reply holds keys.
            return StreamingResponse(
                await lists.read(workload),
                media_type="application/json",
                headers={"Cache-Control": "no-store"},
            )
        # Agents of nodes that an account has still get in after its limit was lowered.
        most = 2 * max(limits.workload_node_limit, AccountSpec().workload_node_limit)
        lists.streams.check_room(workload, most)
    return event_stream(_events(ctx, account, workload, most), ctx.closing)


async def _events(
    ctx: Context, account: str, workload: WorkloadNode, most: int
) -> AsyncGenerator[Iterator[bytes], None]:
    with ctx.workload_lists.of(account) as lists:
        async with aclosing(lists.follow(workload, most)) as events:
            async for event in events:
                yield event
