# SPDX-License-Identifier: Apache-2.0
"""Who else has something of what a manifest's deletion would take: such things are left, or asked for."""

from __future__ import annotations

from collections.abc import Collection

from epic.cli.printing.fields import Row, dig, route_spec
from epic.client import PREFIX, EpicClient
from epic.controller.desired import Address, Item, body_key
from epic.kinds.registry import GW_ROUTE
from epic.model.values.naming import SOURCES_ANNOTATION

_SHOWN = 5


def hosts_of(client: EpicClient, item: Item) -> str:
    """The hosts that ask for the object; empty: nobody does, or it is not there."""
    found = client.find(item.address.path) or {}
    row: Row = found.get(body_key(item.collection), {})
    sources = dig(row, "metadata", "annotations", SOURCES_ANNOTATION)
    return ", ".join(str(sources).split(",")) if sources else ""


def other_routes(client: EpicClient, item: Item, given: Collection[Address]) -> list[str]:
    """The routes, besides those given, that the gateway would go from under."""
    account = item.address.account
    rows = client.list_all(f"{PREFIX}/{GW_ROUTE.path(account)}")
    own = {address.uid for address in given if address.collection == "routes" and address.account == account}
    return [_title(row) for row in rows if row["metadata"]["name"] not in own and item.uid in _parents(row)]


def shown(names: Collection[str]) -> str:
    """The first few of them."""
    some = sorted(names)[:_SHOWN]
    return ", ".join(some) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _parents(row: Row) -> set[str]:
    _, spec = route_spec(row)
    return {str(ref.get("name")) for ref in spec.get("parentRefs", ())}


def _title(row: Row) -> str:
    ref = dig(row, "spec", "clientRef") or {}
    return f"{ref.get('namespace')}/{ref['name']}" if ref.get("name") else str(row["metadata"]["name"])
