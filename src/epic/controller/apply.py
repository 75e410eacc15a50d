# SPDX-License-Identifier: Apache-2.0
"""Bring one object on EPIC to what is desired, or remove it: read, compare, write what differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from epic.client import EpicClient
from epic.controller.desired import Collection, Item, body_key
from epic.controller.state import Owned
from epic.errors import EpicError, Invalid
from epic.model.members import GWMemberSpec
from epic.model.resources import GWEndpointSliceSpec, GWProxySpec, GWRouteSpec

Action = Literal["created", "configured", "unchanged", "deleted", "left", "failed", "warned"]

_Spec = GWProxySpec | GWMemberSpec | GWRouteSpec | GWEndpointSliceSpec
_SPECS: dict[Collection, tuple[type[_Spec], set[str] | None]] = {
    # Of a gateway EPIC fills in more than the client gives.
    "proxies": (GWProxySpec, {"client_ref", "display_name", "public_ports", "gateway"}),
    "members": (GWMemberSpec, {"client_ref", "sharing_key", "display_name", "public_ports", "gateway"}),
    "routes": (GWRouteSpec, None),
    "slices": (GWEndpointSliceSpec, None),
}


class Refusal(NamedTuple):
    """Why one of a route's gateways does not take it: the Gateway API's word, and EPIC's text."""

    reason: str
    message: str


class Written(NamedTuple):
    """What was done with an object, and what is not served of it all the same."""

    action: Action
    refusals: tuple[Refusal, ...] = ()


class BeingDeleted(EpicError):
    """The object's name is not free yet: an earlier object of that name is on its way out."""

    status = 409
    reason = "BeingDeleted"


def write_item(client: EpicClient, item: Item) -> Written:
    """Create the object or change it; nothing is written when it is as desired.

    One that is being deleted is no object of ours any more, and raises BeingDeleted.
    """
    existing = client.find(item.address.path)
    if existing is None:
        if item.gateway != item.address:
            _refuse_if_going(client, item)
        reply = client.post(item.create_path, item.body)
        return Written("created", refusals(reply.get(body_key(item.collection), {})))
    if is_being_deleted(existing, item.collection):
        raise BeingDeleted("it is being deleted; it is created anew when that is done")
    spec = _spec(existing, item.collection)
    group = spec.get("group")
    if item.group and group and group != item.group:
        raise Invalid(
            f"the gateway was made from template {group!r} and cannot move to {item.group!r}; "
            "delete it and create it anew"
        )
    if normal_spec(item.collection, spec) == normal_spec(item.collection, item.spec):
        return Written("unchanged", refusals(existing.get(body_key(item.collection), {})))
    reply = client.put(item.address.path, item.body)
    return Written("configured", refusals(reply.get(body_key(item.collection), {})))


def remove(client: EpicClient, owned: Owned) -> Action:
    """Delete the object."""
    client.delete(owned.address.path)
    return "deleted"


def refusals(shown: dict[str, Any]) -> tuple[Refusal, ...]:
    """Which gateways do not take the route, as the API shows it in the reply to a read or write of it alone.

    None of another object, and of a route in a list, which is shown without.
    """
    return tuple(_refusals(shown))


def _refusals(shown: dict[str, Any]) -> Iterator[Refusal]:
    for parent in shown.get("status", {}).get("parents", ()):
        for condition in parent["conditions"]:
            if (condition["type"], condition["status"]) == ("Accepted", "False"):
                text = f"gateway {parent['parentRef']['name']!r} does not take it: {condition['message']}"
                yield Refusal(condition["reason"], text)


def is_being_deleted(body: dict[str, Any], collection: Collection) -> bool:
    """Whether a reply shows an object that is on its way out."""
    metadata = body.get(body_key(collection), {}).get("metadata", {})
    return isinstance(metadata, dict) and "deletionTimestamp" in metadata


def _spec(body: dict[str, Any], collection: Collection) -> dict[str, Any]:
    spec = body.get(body_key(collection), {}).get("spec", {})
    return spec if isinstance(spec, dict) else {}


def normal_spec(collection: Collection, spec: dict[str, Any]) -> dict[str, Any]:
    """What of a spec a client decides on, every field spelled out, so as to be compared."""
    model, fields = _SPECS[collection]
    return model.model_validate(spec).model_dump(mode="json", include=fields)


def _refuse_if_going(client: EpicClient, item: Item) -> None:
    gateway = client.find(item.gateway.path)
    if gateway is not None and is_being_deleted(gateway, item.gateway.collection):
        raise BeingDeleted(
            f"gateway {item.gateway.uid!r} is being deleted; it is made anew when that is done"
        )
