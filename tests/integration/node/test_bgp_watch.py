# SPDX-License-Identifier: Apache-2.0
"""What the agent knows of a real BIRD: sessions come and go, BIRD is stopped, or hangs."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from bird_site import NODE, NODE6, UPSTREAM, UPSTREAM6, Site, configuration, upstream_configuration

from epic.agent.gateway.bgp import bird
from epic.agent.gateway.bgp.watch import BgpWatch
from epic.errors import Unavailable

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("bird") is None, reason="needs BIRD"),
]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


@asynccontextmanager
async def watching(socket: Path) -> AsyncIterator[BgpWatch]:
    """The watch while it runs."""
    watch = BgpWatch(socket, lambda: None)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()


async def until(reached: Callable[[], bool], watch: BgpWatch) -> None:
    try:
        async with asyncio.timeout(40):
            while not reached():  # noqa: ASYNC110 - BIRD has no event for it
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"it stays so: {watch.status}")


def counts(watch: BgpWatch) -> tuple[int, int]:
    """Sessions, and how many of them are established."""
    status = watch.status
    return (status.configured, status.established) if status else (-1, -1)


def start(site: Site, **neighbor: object) -> Path:
    """A session of the node with the upstream; the control socket of the node's BIRD."""
    site.start(
        configuration({"name": "spine-1.dc:2", "address": UPSTREAM} | neighbor), upstream_configuration(NODE)
    )
    return site.birds[1].control


async def test_a_session_that_comes_goes_and_comes_again(site: Site) -> None:
    async with watching(start(site)) as watch:
        await until(lambda: counts(watch) == (1, 1), watch)
        assert watch.problems == []
        site.birds[0].ask("disable node")
        await until(lambda: counts(watch) == (1, 0), watch)
        assert watch.status is not None
        (down,) = watch.status.down
        assert (down.name, down.address) == ("upstream_spine-1.dc:2", UPSTREAM)
        assert down.error
        (problem,) = watch.problems
        assert problem.startswith(f"the BGP session upstream_spine-1.dc:2 to {UPSTREAM} is down since 20")
        site.birds[0].ask("enable node")
        await until(lambda: counts(watch) == (1, 1), watch)


async def test_a_wrong_password_is_a_session_that_is_down(site: Site) -> None:
    async with watching(start(site, password="p;a}s { #'/*")) as watch:
        await until(lambda: counts(watch) == (1, 0), watch)


async def test_an_ipv6_session_of_which_the_router_takes_no_ipv4_routes_is_no_use(site: Site) -> None:
    only6 = upstream_configuration(NODE6).replace(
        "ipv4 { import all; export none; extended next hop on; };", ""
    )
    site.start(configuration({"name": "r", "address": UPSTREAM6}), only6)
    async with watching(site.birds[1].control) as watch:
        await until(
            lambda: [s.error for s in watch.sessions] == ["the router does not take IPv4 routes"], watch
        )
        assert counts(watch) == (1, 0)


async def test_a_bird_that_is_stopped_and_started_again(site: Site) -> None:
    socket = start(site)
    async with watching(socket) as watch:
        await until(lambda: counts(watch) == (1, 1), watch)
        site.birds[1].stop()
        await until(lambda: counts(watch) == (1, 0), watch)
        assert watch.status is not None and "cannot be asked" in watch.status.failure
        site.birds[1].start()
        await until(lambda: counts(watch) == (1, 1), watch)
        assert watch.status.failure == ""


async def test_a_bird_that_hangs_for_long_holds_nobody_up(site: Site) -> None:
    socket = start(site)
    async with watching(socket) as watch:
        await until(lambda: counts(watch) == (1, 1), watch)
        hanging = site.birds[1].process
        hanging.send_signal(signal.SIGSTOP)
        await until(lambda: counts(watch) == (1, 0), watch)
        assert watch.status is not None and "does not answer" in watch.status.failure
        # More askers than its socket has room for.
        answers = await asyncio.gather(
            *(bird.ask(socket, "show protocols all") for _ in range(20)), return_exceptions=True
        )
        assert all(isinstance(answer, Unavailable) for answer in answers)
        hanging.send_signal(signal.SIGCONT)
        await until(lambda: counts(watch) == (1, 1), watch)


async def test_bird_itself_refuses_the_agent_every_change(site: Site) -> None:
    socket = start(site)
    async with watching(socket) as watch:
        await until(lambda: counts(watch) == (1, 1), watch)
        with pytest.raises(Unavailable, match="Access denied"):
            await bird.ask(socket, "disable all")
        assert counts(watch) == (1, 1)
