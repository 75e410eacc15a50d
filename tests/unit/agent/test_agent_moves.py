# SPDX-License-Identifier: Apache-2.0
"""Far ends that move, as often as a workload node likes.

- Tunnels that move while others are looked at wait together, each once, and by one task.
- What fails keeps no other waiting.
- What is known of routes has a bound, however many far ends a node has had.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from ipaddress import IPv6Address
from typing import cast

from epic.agent.gateway.moves import Moves
from epic.agent.netlink.objects import Netlink
from epic.agent.netlink.route_cache import RouteCache
from epic.agent.runtime.worker import Worker


async def test_tunnels_that_move_while_others_are_looked_at_wait_together() -> None:
    worker = Worker("kernel")
    go_on, done = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    calls: list[list[int]] = []

    def move(ids: Collection[int]) -> None:
        go_on.wait()
        calls.append(list(ids))
        if 9 in ids:
            loop.call_soon_threadsafe(done.set)

    moves = Moves(worker, move)
    moves.add({7})
    await asyncio.sleep(0)
    before = len(asyncio.all_tasks())
    for _ in range(1000):
        moves.add({7})
        moves.add({8})
    moves.add({9})
    assert len(asyncio.all_tasks()) == before
    go_on.set()
    await done.wait()
    worker.close()
    assert calls == [[7], [7, 8, 9]]


async def test_many_are_looked_at_in_parts() -> None:
    worker = Worker("kernel")
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    calls: list[int] = []

    def move(ids: Collection[int]) -> None:
        calls.append(len(ids))
        if sum(calls) == 300:
            loop.call_soon_threadsafe(done.set)

    Moves(worker, move).add(range(300))
    await done.wait()
    worker.close()
    assert calls == [128, 128, 44]


async def test_a_failure_keeps_no_other_waiting_and_is_tried_again_with_the_next() -> None:
    worker = Worker("kernel")
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    calls: list[list[int]] = []
    broken = True

    def move(ids: Collection[int]) -> None:
        if broken and 7 in ids:
            raise RuntimeError("no")
        calls.append(list(ids))
        if 300 in ids:
            loop.call_soon_threadsafe(done.set)

    moves = Moves(worker, move)
    moves.add(range(1, 301))
    await done.wait()
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "move"))
    assert [len(ids) for ids in calls] == [128, 44]
    assert moves.problems == ("far ends of tunnels that moved cannot be followed: RuntimeError('no')",)
    broken = False
    done.clear()
    moves.add({300})
    await done.wait()
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "move"))
    worker.close()
    assert sorted(id_ for ids in calls[2:] for id_ in ids) == [*range(1, 129), 300]
    assert moves.problems == ()


class Kernel:
    """Answers each question, and counts them."""

    def __init__(self) -> None:
        self.asked = 0

    def resolve(self, far: IPv6Address, local: IPv6Address | None) -> None:
        self.asked += 1


def test_what_is_known_of_routes_is_bounded() -> None:
    kernel = Kernel()
    routes = RouteCache(cast("Netlink", kernel))
    far = IPv6Address("2001:db8::")
    for number in range(20_000):
        routes.resolve(far + number)
    last = far + 19_999
    routes.resolve(last)
    assert kernel.asked == 20_000, "what was asked just now is known"
    routes.resolve(far)
    assert kernel.asked == 20_001, "what was asked long ago is not"
