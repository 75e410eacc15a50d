# SPDX-License-Identifier: Apache-2.0
"""A route that its gateway has no room for: nobody else's changes wait for it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from ads_site import Held, Site, eventually, needs_envoy, proxy, route, slice_of, tunnel
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from epic.ads.snapshot import ROUTE_CONFIGURATION
from epic.gatewayapi.attached import room
from epic.model.base import ClientRef, Metadata
from epic.model.members import GWMember, GWMemberSpec
from epic.model.resources import GWRoute

pytestmark = needs_envoy

LARGEST = 20_000


def of_cluster(found: GWRoute, cluster: str, year: int, namespace: str = "") -> GWRoute:
    ref = ClientRef(
        cluster_id=cluster,
        namespace=namespace,
        uid=f"R-{cluster}",
        creation_timestamp=datetime(year, 1, 1, tzinfo=UTC),
    )
    return found.model_copy(
        update={
            "metadata": found.metadata.model_copy(update={"name": ref.uid}),
            "spec": found.spec.model_copy(update={"client_ref": ref}),
        }
    )


def served_on(held: Held) -> list[str]:
    """The paths, as far as they are to be told apart, of the only virtual host."""
    found = held.resources[ROUTE_CONFIGURATION].get("root.U1/port/80")
    if found is None:
        return []
    (host,) = RouteConfiguration.FromString(found.value).virtual_hosts
    return [each.match.path_separated_prefix.rstrip("x") for each in host.routes]


@pytest.mark.parametrize("year_of_small", [2024, 2026], ids=["older", "younger"])
async def test_a_huge_route_of_one_cluster_stops_no_change_of_anothers_on_a_shared_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, year_of_small: int
) -> None:
    monkeypatch.setattr(room, "LARGEST", LARGEST)
    site, held = Site(tmp_path), Held()

    def small(path: str) -> GWRoute:
        return of_cluster(route(path), "b", year_of_small)

    huge = of_cluster(route("/huge" + "x" * LARGEST), "a", 2025)
    site.put(proxy(), huge, small("/before"), slice_of("10.1.0.1"), tunnel())
    async with site.serving(), site.agent(held):
        await eventually(lambda: served_on(held) == ["/before"])
        await eventually(lambda: site.condition("Accepted") == ("True", "RoutesLeftOut"))
        with site.store.transaction() as transaction:
            stored = transaction.get(GWRoute, "root", "R-b")
            transaction.update(stored.model_copy(update={"spec": small("/after").spec}))
        await eventually(lambda: served_on(held) == ["/after"])
        with site.store.transaction() as transaction:
            stored = transaction.get(GWRoute, "root", "R-a")
            transaction.update(stored.model_copy(update={"spec": of_cluster(route("/fits"), "a", 2025).spec}))
        await eventually(lambda: sorted(served_on(held)) == ["/after", "/fits"])
        await eventually(lambda: site.condition("Accepted") == ("True", "Accepted"))


async def test_who_shares_a_gateway_decides_on_whose_routes_it_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LARGEST", 1000)
    site, held = Site(tmp_path), Held()
    shop, bank = (ClientRef(cluster_id=c, namespace=n) for c, n in (("a", "shop"), ("b", "bank")))
    found = proxy()
    gateway = found.model_copy(update={"spec": found.spec.model_copy(update={"client_ref": shop})})
    older = of_cluster(route("/bank" + "x" * 600), "b", 2025, "bank")
    younger = of_cluster(route("/shop" + "x" * 600), "a", 2026, "shop")
    spec = GWMemberSpec(client_ref=bank, sharing_key="U1")
    member = GWMember(metadata=Metadata(name="M-b", namespace="root"), spec=spec)

    def move(namespace: str) -> None:
        ref = bank.model_copy(update={"namespace": namespace})
        with site.store.transaction() as transaction:
            stored = transaction.get(GWMember, "root", "M-b")
            moved = stored.spec.model_copy(update={"client_ref": ref})
            transaction.update(stored.model_copy(update={"spec": moved}))

    async def serves(path: str, reason: str) -> None:
        await eventually(lambda: served_on(held) == [path])
        await eventually(lambda: site.condition("Accepted") == ("True", reason))

    site.put(gateway, older, younger, slice_of("10.1.0.1"), tunnel())
    async with site.serving(), site.agent(held):
        await serves("/shop", "Accepted")
        site.put(member)
        await serves("/bank", "RoutesLeftOut")
        move("fair")
        await serves("/shop", "Accepted")
        move("bank")
        await serves("/bank", "RoutesLeftOut")
        with site.store.transaction() as transaction:
            transaction.delete(GWMember, "root", "M-b")
        await serves("/shop", "Accepted")
