# SPDX-License-Identifier: Apache-2.0
"""Disks that are full and gateways at fault: they stop nothing but themselves, and heal without help."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from ads_site import Held, Site, eventually, needs_envoy, proxy, route, slice_of, tunnel

from epic.ads import service
from epic.ads.desired import configurations, parts, revisions
from epic.ads.snapshot import INSTANCE, LISTENER, ROUTE_CONFIGURATION
from epic.errors import StorageFull
from epic.model.gatewayapi import GatewayAddress
from epic.model.resources import GWProxy
from epic.workqueue.backoff import Backoff

pytestmark = needs_envoy


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(service, "_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(configurations, "_RETRY", Backoff(first=0.05, longest=0.05))
    return Site(tmp_path)


def other(name: str) -> GWProxy:
    found = proxy()
    metadata = found.metadata.model_copy(update={"name": name})
    (instance,) = found.status.instances
    moved = instance.model_copy(update={"inside_address": instance.inside_address + 1})
    status = found.status.model_copy(update={"instances": (moved,), "service": 4})
    return found.model_copy(update={"metadata": metadata, "status": status})


@pytest.mark.parametrize(
    "error",
    [StorageFull("no room"), sqlite3.OperationalError("a fault of ours")],
    ids=["disk", "fault"],
)
async def test_a_status_that_cannot_be_written_is_written_later_and_nothing_ends(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    full = True
    transaction = site.store.transaction

    def failing() -> Any:
        if full:
            raise error
        return transaction()

    site.put(proxy(), route(), slice_of("10.1.0.1"), tunnel())
    monkeypatch.setattr(site.store, "transaction", failing)
    held = Held()
    async with site.serving(), site.agent(held):
        await eventually(lambda: held.resources[ROUTE_CONFIGURATION])
        assert site.condition("Accepted") == ("", "")
        full = False
        await eventually(lambda: site.condition("Accepted") == ("True", "Accepted"))


async def test_a_revision_that_cannot_be_stored_is_stored_later_without_a_change(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = iter([OSError(28, "No space left on device")] * 3)
    save = configurations.Revisions.save

    def failing(*args: Any) -> None:
        for error in failures:
            raise error
        save(*args)

    monkeypatch.setattr(configurations.Revisions, "save", failing)
    site.put(proxy(), route(), slice_of("10.1.0.1"), tunnel())
    held = Held()
    async with site.serving(), site.agent(held):
        await eventually(lambda: held.resources[INSTANCE])
        await eventually(lambda: held.resources[ROUTE_CONFIGURATION])
        await eventually(lambda: site.condition("Accepted") == ("True", "Accepted"))
    kept = [r for r in caplog.records if "keeps its configuration" in r.getMessage()]
    assert len(kept) == 1, "once, not with each try"


async def test_a_revision_that_was_written_in_part_takes_no_room(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: int) -> None:
        raise OSError(28, "No space left on device")

    site.put(proxy(), route(), slice_of("10.1.0.1"), tunnel())
    monkeypatch.setattr(revisions.os, "fsync", failing)
    held = Held()
    async with site.serving(), site.agent(held):
        await eventually(lambda: site.condition("Accepted") == ("False", "NotValidated"))
    assert not list((site.directory / "revisions").iterdir())


async def test_a_gateway_that_asks_for_an_address_of_a_type_not_served_says_so_and_serves(site: Site) -> None:
    anywhere = proxy()
    assert anywhere.spec.gateway is not None
    wish = {"addresses": (GatewayAddress(type="Hostname", value="a.example"),)}
    gateway = anywhere.spec.gateway.model_copy(update=wish)
    wishing = anywhere.spec.model_copy(update={"gateway": gateway})
    site.put(anywhere.model_copy(update={"spec": wishing}), route(), slice_of("10.1.0.1"), tunnel())
    held = Held()
    async with site.serving(), site.agent(held):
        await eventually(lambda: site.condition("Accepted") == ("False", "UnsupportedAddress"))
        await eventually(lambda: held.resources[ROUTE_CONFIGURATION])
        with site.store.transaction() as transaction:
            stored = transaction.get(GWProxy, "root", "U1")
            transaction.update(stored.model_copy(update={"spec": anywhere.spec}))
        await eventually(lambda: site.condition("Accepted") == ("True", "Accepted"))


async def test_a_gateway_that_cannot_be_prepared_holds_up_no_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, broken = parts.gateway_parts, {"root.U1"}

    def failing(inputs: Any, *args: Any) -> Any:
        if str(inputs.proxy.id) in broken:
            raise ValueError("no such thing")
        return build(inputs, *args)

    monkeypatch.setattr(parts, "gateway_parts", failing)
    site.put(proxy(), other("U2"))
    held = Held()
    async with site.serving(), site.agent(held):
        await eventually(lambda: held.names(INSTANCE) == {"root.U2"})
        broken.clear()
        await eventually(lambda: held.names(INSTANCE) == {"root.U1", "root.U2"})


async def test_a_gateway_made_anew_under_a_name_has_nothing_of_the_earlier_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put(proxy(), route(), slice_of("10.1.0.1"))
    held = Held()
    async with site.serving(), site.agent(held):
        await eventually(lambda: held.names(LISTENER))
        saved = site.directory / "revisions/root.U1.json"
        text = saved.read_text()
        anew = proxy()
        status = anew.status.model_copy(update={"service": 9})
        spec = anew.spec.model_copy(update={"gateway": None})
        with site.store.transaction() as transaction:
            transaction.delete(GWProxy, "root", "U1")
            transaction.create(anew.model_copy(update={"status": status, "spec": spec}))
        await eventually(lambda: not held.names(LISTENER))
    # The file of the earlier one was written late.
    saved.write_text(text)
    again = Held()
    site.service = service.AdsService(site.store, site.settings)
    async with site.serving(), site.agent(again):
        await eventually(lambda: again.resources[INSTANCE])
        await asyncio.sleep(0)
        assert not again.names(LISTENER)
