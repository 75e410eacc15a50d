# SPDX-License-Identifier: Apache-2.0
"""The client's objects, each once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TypeVar

from epic.controller.objects.kinds import ClientObject, ReferenceGrant
from epic.controller.objects.refs import Ref

T = TypeVar("T", bound=ClientObject)


class Objects:
    """The client's objects, each once; they may change from one look to the next."""

    def __init__(self, objects: Iterable[ClientObject] = ()) -> None:
        self._by_kind: dict[str, dict[Ref, ClientObject]] = defaultdict(dict)
        self._grants: dict[str, set[Ref]] = defaultdict(set)
        for obj in objects:
            self.put(obj)

    def put(self, obj: ClientObject) -> None:
        """Add an object, in place of the one that there was."""
        self._by_kind[obj.kind][obj.ref] = obj
        if obj.kind == ReferenceGrant.kind:
            self._grants[obj.ref.namespace].add(obj.ref)

    def remove(self, ref: Ref) -> None:
        """Leave an object out; there need be none."""
        self._by_kind[ref.kind].pop(ref, None)
        if ref.kind == ReferenceGrant.kind:
            self._grants[ref.namespace].discard(ref)

    def grants(self, namespace: str) -> list[ReferenceGrant]:
        """The namespace's ReferenceGrants."""
        found = (self.get(ref) for ref in self._grants.get(namespace, ()))
        return [grant for grant in found if isinstance(grant, ReferenceGrant)]

    def everything(self) -> list[ClientObject]:
        """All objects, sorted."""
        every = (obj for objects in self._by_kind.values() for obj in objects.values())
        return sorted(every, key=lambda obj: obj.ref)

    def all(self, kind: type[T]) -> list[T]:
        """All objects of a kind, sorted by namespace and name."""
        found = self._by_kind[kind.kind].values()
        return sorted((obj for obj in found if isinstance(obj, kind)), key=lambda obj: obj.ref)

    def find(self, kind: type[T], namespace: str, name: str) -> T | None:
        """The object, None if there is none."""
        found = self.get(Ref(kind.kind, namespace if kind.namespaced else "", name))
        return found if isinstance(found, kind) else None

    def get(self, ref: Ref) -> ClientObject | None:
        """The object, None if there is none."""
        return self._by_kind[ref.kind].get(ref)
