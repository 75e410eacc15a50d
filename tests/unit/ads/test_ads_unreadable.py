# SPDX-License-Identifier: Apache-2.0
"""After a restart nodes keep what they have of objects that cannot be read, and all else goes on."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from ads_site import Held, Site, eventually, group, needs_envoy, proxy, route, slice_of, tunnel
from damage import damage
from stores import open_store

from epic.ads.service import AdsService
from epic.ads.snapshot import (
    ENDPOINT,
    INSTANCE,
    LISTENER,
    LOAD_ASSIGNMENT,
    NODE_STATE,
    ROUTE_CONFIGURATION,
    SIBLINGS,
    TUNNEL,
    TYPES,
)
from epic.model.base import Metadata, Resource
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute, LBServiceGroup, Node, Tunnel
from epic.model.siblings import Siblings
from epic.model.values.naming import GatewayId
from epic.reconcile.siblings import new_secret, stamped
from epic.siblings.listing import Living, begin, relist

pytestmark = needs_envoy

TIME = datetime(2026, 1, 1, tzinfo=UTC)
KINDS: dict[str, type[Resource]] = {
    kind.kind: kind for kind in (GWProxy, GWRoute, GWEndpointSlice, LBServiceGroup, Node, Siblings, Tunnel)
}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
LIMITED = group(
    "name: {{ ClusterName | tojson }}\ntype: EDS\nconnect_timeout: 2s\n"
    "eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}\n"
)
KEEPS = ("False", "NotValidated")


def siblings() -> Siblings:
    living = [Living("epic1", IPv4Address("172.30.11.2"))]
    spec = relist(
        begin([IPv4Address("203.0.113.1")], TIME, new_secret()), living, ["epic1"], TIME, new_secret()
    )
    spec = stamped(GatewayId("root", "U1"), spec)
    return Siblings(metadata=Metadata(name="U1", namespace="root"), spec=spec)


def another(account: str, name: str, number: int) -> GWProxy:
    """A gateway that has nothing to do with the others."""
    found = proxy()
    (instance,) = found.status.instances
    instance = instance.model_copy(update={"inside_address": IPv4Address(f"100.64.0.{number}")})
    spec = found.spec.model_copy(update={"public_address": IPv4Address(f"203.0.113.{number}")})
    status = found.status.model_copy(update={"instances": (instance,), "service": number})
    metadata = Metadata(name=name, namespace=account)
    return found.model_copy(update={"metadata": metadata, "spec": spec, "status": status})


def of_first(held: Held) -> dict[str, dict[str, str]]:
    """What a node has of the first gateway: types, names and versions."""
    found = {}
    for type_url in TYPES:
        names = {name for name in held.names(type_url) if name.partition("/")[0] == "root.U1"}
        names |= held.names(TUNNEL) if type_url == TUNNEL else set()
        found[type_url] = {name: held.resources[type_url][name].version for name in names}
    return found


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Site, Held]]:
    """A node that has all of a gateway, and whose control plane has ended."""
    site, held = Site(tmp_path), Held()
    site.put(LIMITED, proxy("g"), route(), slice_of("10.1.0.1"), tunnel(), siblings())
    async with site.serving(), site.agent(held):
        await eventually(lambda: held.resources[NODE_STATE] and held.resources[ROUTE_CONFIGURATION])
        await eventually(lambda: site.condition("Accepted") == ("True", "Accepted"))
    assert all(of_first(held)[t] for t in TYPES if t != NODE_STATE)
    yield site, held
    site.store.close()


@asynccontextmanager
async def restarted(site: Site, held: Held) -> AsyncIterator[None]:
    """The control plane serves the node again."""
    site.store.close()
    site.store = open_store(site.directory / "epic.db")
    site.service = AdsService(site.store, site.settings)
    async with site.serving(), site.agent(held):
        yield


def discard(site: Site, obj: Resource) -> None:
    with site.store.transaction() as transaction:
        transaction.delete(type(obj), obj.account, obj.name)


@each_kind
async def test_a_node_keeps_what_it_has_of_an_object_that_cannot_be_read(
    served: tuple[Site, Held], kind: type[Resource]
) -> None:
    site, held = served
    before, node_state = of_first(held), held.versions(NODE_STATE)
    damage(site.store, site.store.list(kind)[0])
    async with restarted(site, held):
        # All else goes on, also on that node.
        site.put(another("other", "U2", 9))
        await eventually(lambda: "other.U2" in held.names(INSTANCE))
        await eventually(lambda: "other.U2/port/80" in held.names(LISTENER))
        if kind is not Node:
            await eventually(lambda: held.versions(NODE_STATE) != node_state)
        if kind in {GWRoute, GWEndpointSlice, LBServiceGroup}:
            await eventually(lambda: site.condition("Accepted") == KEEPS)
    assert of_first(held) == before
    assert not [removed for _, _, removed in held.log if removed]


@pytest.mark.parametrize("kind", [GWRoute, GWEndpointSlice, LBServiceGroup])
async def test_a_gateway_of_which_no_accepted_configuration_is_left_stays_as_nodes_have_it(
    served: tuple[Site, Held], kind: type[Resource]
) -> None:
    site, held = served
    before, broken = of_first(held), site.store.list(kind)[0]
    damage(site.store, broken)
    shutil.rmtree(site.directory / "revisions")
    async with restarted(site, held):
        site.put(another("other", "U2", 9))
        await eventually(lambda: "other.U2/port/80" in held.names(LISTENER))
        await eventually(lambda: site.condition("Accepted") == KEEPS)
        assert of_first(held) == before
        discard(site, broken)
        await eventually(lambda: site.condition("Accepted") == ("True", "Accepted"))
        await eventually(lambda: of_first(held) != before)
        assert "root.U1" in held.names(INSTANCE)


async def test_endpoints_go_on_while_a_route_cannot_be_read(served: tuple[Site, Held]) -> None:
    site, held = served
    damage(site.store, site.store.get(GWRoute, "root", "R1"))
    async with restarted(site, held):
        with site.store.transaction() as transaction:
            stored = transaction.get(GWEndpointSlice, "root", "E1")
            transaction.update(stored.model_copy(update={"spec": slice_of("10.1.0.2").spec}))
        await eventually(lambda: held.names(ENDPOINT) == {"root.U1/10.1.0.2"})
        assert held.names(LOAD_ASSIGNMENT) == {"root.U1/svc/S1/80"}


def with_backend(name: str, number: int) -> tuple[GWProxy, GWRoute, GWEndpointSlice]:
    """Another gateway of the first one's account, with a Service of its own behind it."""
    service = f"S{number}"
    piece = slice_of(f"10.1.0.{number}")
    parent = piece.spec.parent_ref.model_copy(update={"uid": service})
    spec = piece.spec.model_copy(update={"parent_ref": parent})
    metadata = Metadata(name=f"E{number}", namespace="root")
    piece = piece.model_copy(update={"metadata": metadata, "spec": spec})
    http = {"parentRefs": [{"name": name}], "rules": [{"backendRefs": [{"name": service, "port": 80}]}]}
    fields = {"metadata": {"name": f"R{number}", "namespace": "root"}, "spec": {"http": http}}
    return another("root", name, number), GWRoute.model_validate(fields), piece


@pytest.mark.parametrize("kind", [GWRoute, GWEndpointSlice], ids=["route", "slice"])
async def test_an_accounts_other_gateways_go_on(served: tuple[Site, Held], kind: type[Resource]) -> None:
    site, held = served
    before = of_first(held)
    damage(site.store, site.store.list(kind)[0])
    async with restarted(site, held):
        site.put(*with_backend("U3", 7))
        await eventually(lambda: "root.U3/svc/S7/80" in held.names(LOAD_ASSIGNMENT))
        await eventually(lambda: site.condition("Accepted", "U3") == ("True", "Accepted"))
        assert of_first(held) == before


async def test_a_route_may_be_any_gateways_when_its_own_cannot_be_made_out(
    served: tuple[Site, Held],
) -> None:
    site, held = served
    damage(site.store, site.store.list(GWRoute)[0], b'U1"')
    async with restarted(site, held):
        site.put(*with_backend("U3", 7))
        await eventually(lambda: site.condition("Accepted", "U3") == KEEPS)
        await eventually(lambda: site.condition("Accepted") == KEEPS)


@each_kind
async def test_what_was_kept_goes_when_the_object_is_discarded(
    served: tuple[Site, Held], kind: type[Resource]
) -> None:
    site, held = served
    broken = site.store.list(kind)[0]
    damage(site.store, broken)
    async with restarted(site, held):
        site.put(another("other", "U2", 9))
        await eventually(lambda: "other.U2" in held.names(INSTANCE))
        if kind is Node:
            return
        discard(site, broken)
        gone = {
            GWProxy: lambda: not [names for t, names in of_first(held).items() if names and t != TUNNEL],
            GWRoute: lambda: not held.names(ENDPOINT),
            GWEndpointSlice: lambda: not held.names(ENDPOINT),
            LBServiceGroup: lambda: site.condition("Accepted") == ("True", "Accepted"),
            Siblings: lambda: not held.names(SIBLINGS),
            Tunnel: lambda: not held.names(TUNNEL) and not held.names(ENDPOINT),
        }
        await eventually(gone[kind])
