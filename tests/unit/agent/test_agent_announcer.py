# SPDX-License-Identifier: Apache-2.0
"""A kernel that does not answer for long is said, and is no failure of the agent."""

from __future__ import annotations

import asyncio
import logging
import threading
from ipaddress import IPv4Address

import pytest

from epic.agent.gateway import announcement
from epic.agent.gateway.announcement import Announcer

ADDRESS = IPv4Address("203.0.113.7")


class Kernel:
    """Answers when it may."""

    def __init__(self) -> None:
        self.answers = threading.Event()

    def flag_routes(self) -> frozenset[IPv4Address]:
        self.answers.wait()
        return frozenset({ADDRESS})

    def close(self) -> None: ...


async def test_a_kernel_that_does_not_answer_is_a_problem_while_it_lasts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(announcement, "_SLOW_SECONDS", 0.0)
    caplog.set_level(logging.WARNING)
    kernel = Kernel()
    monkeypatch.setattr(announcement, "Netlink", lambda: kernel)
    routes = Announcer()
    opening = asyncio.create_task(routes.open())
    async with asyncio.timeout(60):
        while not routes.problems:  # noqa: ASYNC110 - it says nothing else
            await asyncio.sleep(0.001)
    (said,) = routes.problems
    assert "the kernel has not answered" in said
    kernel.answers.set()
    await opening
    assert (routes.problems, routes.standing) == ((), {ADDRESS})
    assert [r.getMessage().startswith("the kernel let those wait") for r in caplog.records] == [True]
    routes.close()
