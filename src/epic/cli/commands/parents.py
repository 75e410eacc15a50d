# SPDX-License-Identifier: Apache-2.0
"""Gateways that are on EPIC and that manifests only refer to: a route needs no manifest of its Gateway."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from epic.cli.printing import listing
from epic.cli.printing.fields import Row, dig
from epic.client import EpicClient
from epic.controller.objects import (
    CONFIG_GROUP,
    GATEWAY_GROUP,
    ClientObject,
    Document,
    Gateway,
    GatewayClass,
    GatewayClassConfig,
    Ref,
    Route,
    parse,
)
from epic.controller.routes import parents_of
from epic.kinds.registry import GW_PROXY
from epic.model.values.naming import CONTROLLER_NAME

_SOURCE = "EPIC"


def find_parents(
    client: EpicClient, objects: Sequence[ClientObject], account: str, cluster: str
) -> list[ClientObject]:
    """The Gateways that routes among the objects name and that are on EPIC only, with a class of each.

    Of several by one name that of the cluster is meant; else there is none.
    """
    routes = [obj for obj in objects if isinstance(obj, Route)]
    missing = {ref for route in routes for ref in parents_of(route)} - {obj.ref for obj in objects}
    if not missing:
        return []
    rows = listing.fetch(client, GW_PROXY, "", account)
    found = {ref: _one(ref, rows, cluster) for ref in sorted(missing)}
    documents = [
        Document(_SOURCE, content)
        for ref, row in found.items()
        if row is not None
        for content in _contents(ref, row)
    ]
    return parse(documents)[0]


def _one(ref: Ref, rows: Iterable[Row], cluster: str) -> Row | None:
    meant = [row for row in rows if _is_meant(ref, row)]
    if len(meant) > 1:
        meant = [row for row in meant if dig(row, "spec", "clientRef", "clusterID") == cluster]
    return meant[0] if len(meant) == 1 else None


def _is_meant(ref: Ref, row: Row) -> bool:
    client = dig(row, "spec", "clientRef") or {}
    named = (client.get("namespace"), client.get("name")) == (ref.namespace, ref.name)
    return named and "deletionTimestamp" not in row["metadata"] and bool(dig(row, "spec", "gateway"))


def _contents(ref: Ref, row: Row) -> Iterable[dict[str, Any]]:
    """The Gateway as its client would have it, of a class that leads to where it is."""
    uid, spec = str(row["metadata"]["name"]), row["spec"]
    name = f"of-{uid}"
    yield {
        "apiVersion": f"{CONFIG_GROUP}/v1",
        "kind": GatewayClassConfig.kind,
        "metadata": {"name": name, "namespace": ref.namespace},
        "spec": {
            "epic": {
                "cluster-name": spec["clientRef"].get("clusterID", ""),
                "user-namespace": row["metadata"]["namespace"],
                "gateway-template": spec["group"],
            }
        },
    }
    parameters = {"group": CONFIG_GROUP, "kind": GatewayClassConfig.kind, "name": name}
    yield {
        "apiVersion": f"{GATEWAY_GROUP}/v1",
        "kind": GatewayClass.kind,
        "metadata": {"name": name},
        "spec": {
            "controllerName": CONTROLLER_NAME,
            "parametersRef": {**parameters, "namespace": ref.namespace},
        },
    }
    yield {
        "apiVersion": f"{GATEWAY_GROUP}/v1",
        "kind": Gateway.kind,
        "metadata": {"name": ref.name, "namespace": ref.namespace, "uid": uid},
        "spec": {**spec["gateway"], "gatewayClassName": name},
    }
