# SPDX-License-Identifier: Apache-2.0
"""Bring EPIC to what is desired: read, compare, write what differs, in an order that requests can stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from epic.client import EpicClient
from epic.controller.desired import Address, Collection, Desired, EpicConnection, Item, body_key
from epic.controller.state import Owned, State, StateFile
from epic.errors import EpicError, Invalid, Unavailable
from epic.model.resources import GWEndpointSliceSpec, GWProxySpec, GWRouteSpec

Action = Literal["created", "configured", "unchanged", "deleted", "left", "failed"]
ClientOf = Callable[[EpicConnection], EpicClient]

_SPECS: dict[Collection, tuple[type[GWProxySpec | GWRouteSpec | GWEndpointSliceSpec], set[str] | None]] = {
    # Of a gateway EPIC fills in more than the client gives.
    "proxies": (GWProxySpec, {"client_ref", "display_name", "public_ports", "gateway"}),
    "routes": (GWRouteSpec, None),
    "slices": (GWEndpointSliceSpec, None),
}
_REMOVAL_ORDER: dict[Collection, int] = {"routes": 0, "slices": 1, "proxies": 2}


class BeingDeleted(EpicError):
    """The object's name is not free yet: an earlier object of that name is on its way out."""


@dataclass(frozen=True)
class Outcome:
    """What was done with an object, or why it failed."""

    object: str
    address: Address
    action: Action
    message: str = ""


def write_item(client: EpicClient, item: Item) -> Action:
    """Create the object or change it; nothing is written when it is as desired.

    One that is being deleted is no object of ours any more, and raises BeingDeleted.
    """
    existing = client.find(item.address.path)
    if existing is None:
        client.post(item.create_path, item.body)
        return "created"
    if is_being_deleted(existing, item.collection):
        raise BeingDeleted("it is being deleted; it is created anew when that is done")
    spec = _spec(existing, item.collection)
    if item.shared and not _same_owner(spec, item.spec):
        return "left"
    group = spec.get("group")
    if item.group and group and group != item.group:
        raise Invalid(
            f"the gateway was made from template {group!r} and cannot move to {item.group!r}; "
            "delete it and create it anew"
        )
    if _normal(item.collection, spec) == _normal(item.collection, item.spec):
        return "unchanged"
    client.put(item.address.path, item.body)
    return "configured"


def remove(client: EpicClient, owned: Owned) -> Action:
    """Delete the object, unless it is a shared gateway that another cluster made."""
    if owned.shared:
        existing = client.find(owned.address.path)
        own = {
            "clientRef": {
                "clusterID": owned.cluster,
                "namespace": owned.ref.namespace,
                "name": owned.ref.name,
            }
        }
        if existing is not None and not _same_owner(_spec(existing, owned.address.collection), own):
            return "left"
    client.delete(owned.address.path)
    return "deleted"


class Applier:
    """Makes EPIC follow one source of objects, and remembers what it made, so as to delete it in time."""

    def __init__(self, state_file: StateFile, client_of: ClientOf) -> None:
        self._file = state_file
        self._client_of = client_of
        self._read: State | None = None

    @property
    def _state(self) -> State:
        if self._read is None:
            self._read = self._file.read()
        return self._read

    def connections(self) -> list[EpicConnection]:
        """The accounts in which something was made."""
        return list(self._state.logins.values())

    def reconcile(self, desired: Desired, *, prune: bool = True) -> list[Outcome]:
        """Write what is desired, then delete what was made earlier and is desired no more (if `prune`)."""
        # What may be made is noted before it is made: after a crash it is still known.
        self._remember(self._state.with_desired(desired))
        unreachable: set[str] = set()
        outcomes = [self._write(item, unreachable) for item in desired.items]
        wanted = {item.address for item in desired.items}
        for owned in self._removable(desired, wanted) if prune else ():
            outcome = self._remove(owned, unreachable)
            outcomes.append(outcome)
            if outcome.action != "failed":
                self._remember(self._state.without(owned))
        return outcomes

    def _removable(self, desired: Desired, wanted: set[Address]) -> list[Owned]:
        gone = [o for o in self._state.owned if o.address not in wanted and o.ref not in desired.held]
        return sorted(gone, key=lambda owned: _REMOVAL_ORDER[owned.address.collection])

    def _remember(self, state: State) -> None:
        if state != self._state:
            self._file.write(state)
            self._read = state

    def _write(self, item: Item, unreachable: set[str]) -> Outcome:
        return _attempt(
            str(item.ref),
            item.address,
            unreachable,
            lambda: write_item(self._client_of(item.connection), item),
        )

    def _remove(self, owned: Owned, unreachable: set[str]) -> Outcome:
        connection = self._state.login(owned)
        return _attempt(
            str(owned.ref), owned.address, unreachable, lambda: remove(self._client_of(connection), owned)
        )


def _attempt(what: str, address: Address, unreachable: set[str], act: Callable[[], Action]) -> Outcome:
    if address.server in unreachable:
        return Outcome(what, address, "failed", f"{address.server} cannot be reached")
    try:
        return Outcome(what, address, act())
    except Unavailable as error:
        # The next object of that server would only wait as long again.
        unreachable.add(address.server)
        return Outcome(what, address, "failed", str(error))
    except EpicError as error:
        return Outcome(what, address, "failed", str(error))


def failures(outcomes: Iterable[Outcome]) -> list[str]:
    """What failed, in words."""
    return [f"{o.object}: {o.message}" for o in outcomes if o.action == "failed"]


def is_being_deleted(body: dict[str, Any], collection: Collection) -> bool:
    """Whether a reply shows an object that is on its way out."""
    metadata = body.get(body_key(collection), {}).get("metadata", {})
    return isinstance(metadata, dict) and "deletionTimestamp" in metadata


def _spec(body: dict[str, Any], collection: Collection) -> dict[str, Any]:
    spec = body.get(body_key(collection), {}).get("spec", {})
    return spec if isinstance(spec, dict) else {}


def _normal(collection: Collection, spec: dict[str, Any]) -> dict[str, Any]:
    model, fields = _SPECS[collection]
    return model.model_validate(spec).model_dump(mode="json", include=fields)


def _same_owner(spec: dict[str, Any], own: dict[str, Any]) -> bool:
    keys = ("clusterID", "namespace", "name")
    theirs, ours = spec.get("clientRef", {}), own["clientRef"]
    return all(theirs.get(key, "") == ours[key] for key in keys)
