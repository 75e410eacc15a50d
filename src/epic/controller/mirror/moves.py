# SPDX-License-Identifier: Apache-2.0
"""What is asked for elsewhere than it was and cannot be made there: all of it stays where it was."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from epic.controller.desired import Address, Item
from epic.controller.mirror.observed import Observed
from epic.controller.objects import Ref
from epic.controller.state import Owned
from epic.errors import EpicError, NameTaken


class Waiting(EpicError):
    """A route's Gateways are not on EPIC, so it is served by none."""

    status = 409
    reason = "Pending"


class Moves:
    """Of one pass: `gateways` are all Gateways that are asked for, `owned` is what was made earlier."""

    def __init__(self, observed: Observed, owned: Mapping[Address, Owned], gateways: Iterable[Item]) -> None:
        self._observed = observed
        self._gateways = tuple(gateways)
        self._failed: dict[Ref, dict[Address, tuple[Item, str]]] = defaultdict(dict)
        self._owned = owned

    def note_failed(self, item: Item, reason: str) -> None:
        """An item that could not be written."""
        self._failed[item.ref][item.address] = item, reason

    def around(self, item: Item) -> Item:
        """The item as it can be now: routes of a Gateway that stays where it was do so too.

        Raises Waiting for a route of which no Gateway is on EPIC.
        """
        if item.collection != "routes" or not self._standing:
            return item
        section = next(key for key in item.spec if key != "clientRef")
        before = item.spec[section]["parentRefs"]
        parents = list(_parents(item, before, self._standing))
        if not parents:
            names = ", ".join(sorted({repr(parent["name"]) for parent in before}))
            raise Waiting(f"it waits until its Gateway can be gateway {names}; what there is of it stays")
        if parents == before:
            return item
        return replace(item, spec={**item.spec, section: {**item.spec[section], "parentRefs": parents}})

    def keeps(self, owned: Owned) -> bool:
        """Whether an object that is desired no more stays, for what is to be in its place is not there."""
        for item, reason in self._failed.get(owned.ref, {}).values():
            if item.address == owned.address or self._is_there(item.address):
                continue
            if reason != NameTaken.reason or not self._has_its_name(owned, item):
                return True
        return owned.address.collection == "slices" and _account(owned.address) in self._left

    @cached_property
    def _failed_gateways(self) -> list[Item]:
        """They are written before all else, so this is asked for when it is known."""
        return [item for item in self._gateways if item.address in self._failed.get(item.ref, ())]

    @cached_property
    def _standing(self) -> dict[Address, Address | None]:
        """Gateways that could not be joined or made: where who asks for them is instead, if anywhere."""
        standing: dict[Address, Address | None] = {}
        failed = self._failed_gateways
        good = {item.gateway for item in self._gateways} if failed else set()
        good -= {item.gateway for item in failed}
        for item in failed:
            if item.gateway in good or self._gateway_at(item.address) == item.gateway:
                continue
            former = [place for place in self._places(item) if place != item.gateway]
            if former or item.collection == "members":
                here = [place for place in former if _account(place) == _account(item.address)]
                found = here[0] if here else None
                if standing.setdefault(item.gateway, found) != found:
                    standing[item.gateway] = None
        return standing

    @cached_property
    def _left(self) -> set[tuple[str, str]]:
        """The accounts in which a Gateway stays though another is to have it now."""
        return {
            _account(place)
            for item in self._failed_gateways
            for place in self._places(item)
            if _account(place) != _account(item.address)
        }

    @cached_property
    def _of_ref(self) -> dict[Ref, list[Owned]]:
        found = defaultdict(list)
        for one in self._owned.values():
            if one.address.collection in {"proxies", "members"}:
                found[one.ref].append(one)
        return found

    def _places(self, item: Item) -> Iterator[Address]:
        """The gateways that a Gateway is on EPIC."""
        for address in (item.address, *(one.address for one in self._of_ref.get(item.ref, ()))):
            gateway = self._gateway_at(address)
            if gateway is not None:
                yield gateway

    def _gateway_at(self, address: Address) -> Address | None:
        """The gateway that an object of a Gateway is or shares, if it is there and stays."""
        seen = self._observed.find(address)
        if seen is None or seen.deleting:
            return None
        return address._replace(collection="proxies", uid=seen.gateway or address.uid)

    def _is_there(self, address: Address) -> bool:
        seen = self._observed.find(address)
        return seen is not None and not seen.deleting

    def _has_its_name(self, owned: Owned, item: Item) -> bool:
        """Whether it is the former gateway that has the name which the new one is to have.

        So it is if both are of one template, and when nobody else shares it, it takes the name along.
        """
        gateway = self._gateway_at(owned.address)
        seen = self._observed.find(gateway) if gateway is not None else None
        own = (owned.cluster, owned.ref.namespace, owned.ref.name)
        return (
            seen is not None
            and _account(owned.address) == _account(item.address)
            and seen.group == item.group
            and seen.members <= {own}
        )


def _account(address: Address) -> tuple[str, str]:
    return address.server, address.account


def _parents(
    item: Item, refs: Iterable[dict[str, Any]], standing: Mapping[Address, Address | None]
) -> Iterator[dict[str, Any]]:
    for ref in refs:
        wished = item.address._replace(collection="proxies", uid=ref["name"])
        place = standing.get(wished, wished)
        if place is not None:
            yield {**ref, "name": place.uid}
