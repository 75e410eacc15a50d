# SPDX-License-Identifier: Apache-2.0
"""What an account changes on many gateways keeps no other's change waiting for more than its share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ads_site import eventually
from publication_world import Objects

from epic.ads import service as service_module
from epic.ads.service import AdsService
from epic.ads.settings import AdsSettings
from epic.ads.status_saver import StatusSaver
from epic.errors import EpicError, NotWritable
from epic.model.values.naming import GatewayId
from epic.supervise import TellOnce

GREEDY = [GatewayId("greedy", f"g{number}") for number in range(100)]
MODEST = GatewayId("modest", "g0")


@asynccontextmanager
async def running(work: asyncio.Task[None]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        work.cancel()
        await asyncio.wait([work])


async def test_a_change_is_published_before_all_gateways_of_another_account_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: list[GatewayId] = []
    published: list[list[GatewayId]] = []

    async def publish() -> None:
        published.append(list(looked_at))

    monkeypatch.setattr(service_module, "_DEBOUNCE_SECONDS", 0)
    settings = AdsSettings("", 0, Path(), Path(), None, Path())  # type: ignore[arg-type]
    service = AdsService(Objects(), settings)  # type: ignore[arg-type]
    monkeypatch.setattr(service, "_try_to_refresh", looked_at.append)
    monkeypatch.setattr(service, "_publish", publish)
    async with running(asyncio.create_task(service._publish_changes())):
        service._wake.set()
        await eventually(lambda: published == [[]])
        for gateway in [*GREEDY, MODEST]:
            service._touch(gateway)
        await eventually(lambda: len(looked_at) == len(GREEDY) + 1)
    assert MODEST in published[1]
    assert len(published[1]) < len(GREEDY) / 2
    assert set(looked_at) == {*GREEDY, MODEST}


class Saved:
    """Statuses that were written down; while `full`, nothing can be."""

    def __init__(self) -> None:
        self.full = False
        self.order: list[GatewayId] = []
        self.newest: dict[GatewayId, str] = {}
        self.tried = 0

    async def save(self, gateway: GatewayId, revision: str, _: EpicError | None, left_out: int) -> None:
        self.tried += 1
        await asyncio.sleep(0)
        if self.full:
            raise NotWritable("the disk is full")
        self.order.append(gateway)
        self.newest[gateway] = revision


def saver_of(saved: Saved) -> StatusSaver:
    return StatusSaver(saved.save, lambda _: None, TellOnce(logging.getLogger()), 0)


async def test_the_status_of_a_gateway_waits_for_one_of_each_other_account() -> None:
    saved = Saved()
    saver = saver_of(saved)
    for gateway in [*GREEDY, MODEST]:
        saver.note(gateway, "1", None, 0)
    async with running(asyncio.create_task(saver.run())):
        await eventually(lambda: len(saved.order) == len(GREEDY) + 1)
    assert saved.order.index(MODEST) == 1


async def test_statuses_are_saved_when_something_can_be_written_again_the_newest_of_each() -> None:
    saved = Saved()
    saved.full = True
    saver = saver_of(saved)
    for gateway in [*GREEDY, MODEST]:
        saver.note(gateway, "1", None, 0)
    async with running(asyncio.create_task(saver.run())):
        await eventually(lambda: saved.tried > 2)
        saver.note(GREEDY[0], "2", None, 0)
        saved.full = False
        await eventually(lambda: len(saved.newest) == len(GREEDY) + 1)
        await eventually(lambda: saved.newest[GREEDY[0]] == "2")
    assert set(saved.newest.values()) == {"1", "2"}
