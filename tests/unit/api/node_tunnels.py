# SPDX-License-Identifier: Apache-2.0
"""What a workload node of the account `root` is told of its tunnels."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from epic.ads.snapshot import WORKLOAD_TUNNEL
from epic.cache.store import CachedStore
from epic.ipam.networks import DEFAULT_POOLS
from epic.live import Live
from epic.proto import epic_pb2
from epic.tunnels import WorkloadNode
from epic.workloads.followed import FollowedAccounts
from epic.workloads.tunnels import NodeTunnels


async def tunnels_of(store: CachedStore, node: str, cluster: str = "c1") -> list[epic_pb2.WorkloadTunnel]:
    """Its tunnels by number, as soon as it is known which they are."""
    accounts, tunnels = FollowedAccounts(store, Live(), lambda _: None), NodeTunnels(DEFAULT_POOLS.inside6)
    with accounts.of("root") as account:
        async with asyncio.timeout(60), aclosing(account.news(WorkloadNode(cluster, node), _ready)) as news:
            revision, told = await anext(news)
    tunnels.take(tunnels.find_change(told), revision)
    found = tunnels.snapshot[WORKLOAD_TUNNEL].values()
    return sorted((epic_pb2.WorkloadTunnel.FromString(each.value) for each in found), key=lambda t: t.id)


async def _ready() -> None:
    pass
