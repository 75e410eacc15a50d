# SPDX-License-Identifier: Apache-2.0
"""What the API last answered about objects: so much of it as tells whether one is as desired."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import ValidationError

from epic.client import EpicClient
from epic.controller.apply import Refusal, normal_spec, refusals
from epic.controller.desired import Address, Collection, EpicConnection, body_key
from epic.gatewayapi.statuses import told_left_out
from epic.model.values.naming import SOURCES_ANNOTATION

ClientOf = Callable[[EpicConnection], EpicClient]

_TOLD = ("public-address", "alt-address", "endpoints")


@dataclass(frozen=True)
class Seen:
    """An object as the API showed it.

    `members` are a shared gateway's: cluster, namespace and name; `gateway` is what a member shares;
    `parents` are the gateways that a route names.
    """

    version: str
    digest: bytes
    deleting: bool
    group: str
    members: frozenset[tuple[str, str, str]]
    gateway: str
    parents: tuple[str, ...]
    sources: tuple[str, ...]
    answer: dict[str, Any] = field(compare=False, hash=False)
    """Of gateways and members, what is told to the client: addresses, names and conditions."""


class Observed:
    """The objects of all accounts that are followed, by their addresses."""

    def __init__(self, client_of: ClientOf) -> None:
        self._client_of = client_of
        self._seen: dict[Address, Seen] = {}
        self._doubtful: set[Address] = set()
        self._unjudged: set[Address] = set()
        # Gateways that have changed; True: in how many routes they leave out.
        self._rejudging: dict[Address, bool] = {}
        self.refused: dict[Address, tuple[Refusal, ...]] = {}
        """Routes that gateways did not take when they were written or looked at last."""

    def find(self, address: Address) -> Seen | None:
        """The object as it was seen last; asks again for one that is doubted."""
        return self._seen.get(address)

    def is_doubtful(self, address: Address) -> bool:
        """Whether what is known of it may be wrong."""
        return address in self._doubtful or address in self._unjudged

    def doubt(self, address: Address) -> None:
        """Something else than expected was heard of it."""
        self._doubtful.add(address)

    def doubt_verdicts(self, routes: Iterable[Address]) -> set[Address]:
        """Of these routes, those of which gateways that have changed since the last call may say otherwise.

        They are refused ones of gateways in which something is another that decides on routes, and all of
        gateways that leave out another number of them. A list of routes does not say what gateways make of
        them: they are doubtful until each has been looked at.
        """
        gateways, self._rejudging = self._rejudging, {}
        if not gateways:
            return set()
        found = {route for route in routes if self._may_be_judged_otherwise(route, gateways)}
        self._unjudged |= found
        return found

    def note(self, address: Address, reply: dict[str, Any]) -> Seen:
        """Take in the reply to a read or a write of the object."""
        item = reply.get(body_key(address.collection), {})
        self._unjudged.discard(address)
        self.refused.pop(address, None)
        if found := refusals(item):
            self.refused[address] = found
        return self._set(address, item)

    def forget(self, address: Address) -> None:
        """The object is not there."""
        self._doubtful.discard(address)
        self._unjudged.discard(address)
        self._compare(address, self._seen.pop(address, None), None)
        self.refused.pop(address, None)

    def look(self, connection: EpicConnection, address: Address) -> Seen | None:
        """Ask the API for one object."""
        reply = self._client_of(connection).find(address.path)
        if reply is None:
            self.forget(address)
            return None
        return self.note(address, reply)

    def list(self, connection: EpicConnection, collection: Collection) -> set[Address]:
        """Ask the API for all objects of an account's collection; returns those that are others than before.

        Others than before are also those that are gone. Raises EpicError, and then nothing has changed.
        """
        path = f"/api/epic/accounts/{connection.account}/{collection}"
        items = self._client_of(connection).list_all(path)
        mine = {
            a
            for a in self._seen
            if (a.server, a.account, a.collection) == (connection.server, connection.account, collection)
        }
        found: set[Address] = set()
        changed: set[Address] = set()
        for item in items:
            name = str(item.get("metadata", {}).get("name", ""))
            address = Address(connection.server, connection.account, collection, name)
            before = self._seen.get(address)
            found.add(address)
            if self._set(address, item) != before:
                changed.add(address)
        for address in mine - found:
            self.forget(address)
        return changed | (mine - found)

    def _set(self, address: Address, item: dict[str, Any]) -> Seen:
        self._doubtful.discard(address)
        before = self._seen.get(address)
        if before is not None and _is_as(before, address.collection, item):
            return before
        seen = self._seen[address] = seen_of(address.collection, item)
        self._compare(address, before, seen)
        return seen

    def _compare(self, address: Address, before: Seen | None, after: Seen | None) -> None:
        # Who shares a gateway is seen in it, too, and each change once.
        if address.collection == "proxies" and _deciding(before) != _deciding(after):
            is_every_route = _left_out(before) != _left_out(after)
            self._rejudging[address] = is_every_route or self._rejudging.get(address, False)

    def _may_be_judged_otherwise(self, route: Address, gateways: dict[Address, bool]) -> bool:
        seen = self._seen.get(route)
        parents = (Address(*route[:2], "proxies", name) for name in (seen.parents if seen else ()))
        return any(gateways[gateway] or route in self.refused for gateway in parents if gateway in gateways)


def _deciding(gateway: Seen | None) -> tuple[object, ...] | None:
    """What of a gateway decides on which routes it takes; its version is another with each node's report."""
    if gateway is None:
        return None
    return gateway.digest, gateway.deleting, gateway.members, _accepted(gateway)


def _left_out(gateway: Seen | None) -> int:
    return told_left_out(_accepted(gateway)[2]) if gateway is not None else 0


def _accepted(gateway: Seen) -> tuple[str, str, str]:
    """Status, reason and message of its condition Accepted."""
    for condition in gateway.answer["status"]["conditions"]:
        if condition["type"] == "Accepted":
            return condition["status"], condition["reason"], condition["message"]
    return "", "", ""


def _is_as(before: Seen, collection: Collection, item: dict[str, Any]) -> bool:
    """Whether the object is shown as before; its version alone does not tell that of all that is shown.

    What a member is told changes with its gateway, and who shares a gateway without a write of it.
    """
    return (
        collection != "members"
        and bool(before.version)
        and before.version == _version(item)
        and before.members == _members(item)
    )


def seen_of(collection: Collection, item: dict[str, Any]) -> Seen:
    """What is kept of an object."""
    metadata, spec = item.get("metadata", {}), item.get("spec", {})
    status = item.get("status", {})
    sources = str(metadata.get("annotations", {}).get(SOURCES_ANNOTATION, ""))
    answer = {}
    if collection == "proxies":
        answer = _answer(spec, status.get("conditions", []))
    elif collection == "members":
        gateway = status.get("gateway", {})
        answer = _answer(gateway, [*status.get("conditions", []), *gateway.get("conditions", [])])
    return Seen(
        version=_version(item),
        digest=digest(collection, spec),
        deleting="deletionTimestamp" in metadata,
        group=str(spec.get("group", "")),
        members=_members(item),
        gateway=str(spec.get("sharing-key", "")) if collection == "members" else "",
        parents=_parents(spec) if collection == "routes" else (),
        sources=tuple(filter(None, (part.strip() for part in sources.split(",")))),
        answer=answer,
    )


def _parents(spec: dict[str, Any]) -> tuple[str, ...]:
    sections = (section for section in spec.values() if isinstance(section, dict))
    return tuple({str(ref.get("name", "")): None for each in sections for ref in each.get("parentRefs", ())})


def _answer(gateway: dict[str, Any], conditions: list[Any]) -> dict[str, Any]:
    told = {key: gateway[key] for key in _TOLD if gateway.get(key)}
    return {"spec": told, "status": {"conditions": conditions}}


def _version(item: dict[str, Any]) -> str:
    return str(item.get("metadata", {}).get("resourceVersion", ""))


def _members(item: dict[str, Any]) -> frozenset[tuple[str, str, str]]:
    return frozenset(map(_client, item.get("status", {}).get("members", ())))


def _client(ref: dict[str, Any]) -> tuple[str, str, str]:
    return str(ref.get("clusterID", "")), str(ref.get("namespace", "")), str(ref.get("name", ""))


def digest(collection: Collection, spec: dict[str, Any]) -> bytes:
    """Equal for specs that ask for the same; empty for one that cannot be read."""
    try:
        normal = normal_spec(collection, spec)
    except ValidationError:
        return b""
    return hashlib.blake2b(json.dumps(normal, sort_keys=True).encode(), digest_size=16).digest()


COLLECTIONS: tuple[Collection, ...] = get_args(Collection)
