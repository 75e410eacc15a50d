# SPDX-License-Identifier: Apache-2.0
"""One object's write or removal: one request if it is as seen last, else a look and another."""

from __future__ import annotations

from typing import Any

from epic.client import EpicClient
from epic.controller.apply import Action, BeingDeleted
from epic.controller.desired import Address, Collection, EpicConnection, Item, body_key
from epic.controller.mirror.observed import ClientOf, Observed, Seen, digest
from epic.controller.state import Owned
from epic.errors import AlreadyExists, Conflict, Invalid, NotFound
from epic.model.values.naming import SOURCES_ANNOTATION, SOURCES_MAX


class AskedOtherwise(Conflict):
    """Another source asks for the object otherwise, and was first."""


class Writer:
    """Writes for one source among those that may ask for the same objects.

    What the first of an object's sources wants counts; the others say so where they want something else.
    """

    def __init__(self, observed: Observed, client_of: ClientOf, source: str) -> None:
        self._observed = observed
        self._client_of = client_of
        self._source = source
        self.warnings: dict[Address, str] = {}
        """What the server warned of when it took an object as it is now."""

    def write(self, item: Item) -> Action:
        """Make the object as desired; raises EpicError where that is not possible."""
        if self._observed.is_doubtful(item.address):
            self._observed.look(item.connection, item.address)
        try:
            return self._write(item)
        except AskedOtherwise:
            raise
        except (AlreadyExists, Conflict, NotFound):
            # It is not as it was seen last.
            self._observed.look(item.connection, item.address)
            return self._write(item)

    def remove(self, owned: Owned, connection: EpicConnection) -> Action:
        """Delete the object, unless somebody else asks for it."""
        seen = self._observed.find(owned.address)
        if seen is None:
            return "deleted"
        own = (owned.cluster, owned.ref.namespace, owned.ref.name)
        if self._claims(owned.address.collection) or owned.address.collection == "proxies":
            # Another host may have begun to ask for it since.
            seen = self._observed.look(connection, owned.address)
            if seen is not None and own in seen.members:
                # The Gateway shares it now, and lets go of it as a member.
                return "left"
            if seen is not None and self._others(seen):
                self._withdraw(owned, connection, seen)
                return "left"
        self._client_of(connection).delete(owned.address.path)
        self._observed.forget(owned.address)
        self.warnings.pop(owned.address, None)
        if owned.address.collection == "proxies":
            # It goes when its nodes have let go of it.
            self._observed.doubt(owned.address)
        return "deleted"

    def _write(self, item: Item) -> Action:
        seen = self._observed.find(item.address)
        if seen is None:
            self._create(item)
            return "created"
        if seen.deleting:
            self._observed.doubt(item.address)
            raise BeingDeleted("it is being deleted; it is created anew when that is done")
        if item.group and seen.group and seen.group != item.group:
            raise Invalid(
                f"the gateway was made from template {seen.group!r} and cannot move to {item.group!r}; "
                "delete it and create it anew"
            )
        alike = bool(seen.digest) and seen.digest == digest(item.collection, item.spec)
        first = seen.sources[0] if seen.sources else self._source
        if not alike and first != self._source:
            raise AskedOtherwise(
                f"{first} asks for it otherwise and was first, so that counts; "
                "keep it in one place, or the same in both"
            )
        if alike and not self._is_claim_missing(item, seen):
            return "unchanged"
        self._replace(item, seen)
        return "configured"

    def _create(self, item: Item) -> None:
        sources = (self._source,) if self._claims(item.collection) else ()
        body = _body(item, sources)
        client = self._client_of(item.connection)
        self._observed.note(item.address, client.create(item.create_path, body))
        self._note_warnings(item, client)

    def _replace(self, item: Item, seen: Seen) -> None:
        sources = seen.sources
        if self._is_claim_missing(item, seen):
            sources = (*sources, self._source)
        client = self._client_of(item.connection)
        self._observed.note(item.address, client.put(item.address.path, _body(item, sources, seen.version)))
        self._note_warnings(item, client)

    def _note_warnings(self, item: Item, client: EpicClient) -> None:
        self.warnings.pop(item.address, None)
        if found := client.take_warnings():
            self.warnings[item.address] = "; ".join(found)

    def _is_claim_missing(self, item: Item, seen: Seen) -> bool:
        if not self._claims(item.collection) or self._source in seen.sources:
            return False
        return len(",".join((*seen.sources, self._source))) <= SOURCES_MAX

    def _claims(self, collection: Collection) -> bool:
        # A host's slices are its own: their names have the host's in them.
        return bool(self._source) and collection != "slices"

    def _others(self, seen: Seen) -> tuple[str, ...]:
        return tuple(source for source in seen.sources if source != self._source)

    def _withdraw(self, owned: Owned, connection: EpicConnection, seen: Seen) -> None:
        if self._source in seen.sources:
            client = self._client_of(connection)
            key = body_key(owned.address.collection)
            found = client.get(owned.address.path)[key]
            body = {key: {"metadata": _metadata(self._others(seen), seen.version), "spec": found["spec"]}}
            self._observed.note(owned.address, client.put(owned.address.path, body))


def _body(item: Item, sources: tuple[str, ...], version: str = "") -> dict[str, Any]:
    metadata = _metadata(sources, version)
    return {body_key(item.collection): {**({"metadata": metadata} if metadata else {}), "spec": item.spec}}


def _metadata(sources: tuple[str, ...], version: str) -> dict[str, Any]:
    annotations = {"annotations": {SOURCES_ANNOTATION: ",".join(sources)}} if sources else {}
    return {**annotations, **({"resourceVersion": version} if version else {})}
