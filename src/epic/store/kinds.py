# SPDX-License-Identifier: Apache-2.0
"""How the registry's kinds are stored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from epic.kinds.kind import Kind, T
from epic.store.objects import Key, Put, Stored
from epic.store.schema import Schema, StoredKind


def schema_of(kinds: Iterable[Kind[Any]], *others: StoredKind) -> Schema:
    """What a store of these kinds, and of others that are not the registry's, reads and writes."""
    return Schema([*(StoredKind(kind.name, kind.form, kind.conversions) for kind in kinds), *others])


def write_of(kind: Kind[T], obj: T) -> Put:
    """The write of an object in place of the revision that it was read at; 0: it is new."""
    key = Key(kind.name, obj.account, obj.name)
    return Put(key, kind.encode(obj), obj.metadata.resource_version, obj.metadata.labels)


def read_of(kind: Kind[T], stored: Stored) -> T:
    """The object that is stored; raises ValueError when it is none of the kind, or not the key's."""
    found = kind.decode(stored.body, stored.revision)
    if (found.account, found.name) != (stored.key.account, stored.key.name):
        raise ValueError(f"it is called {found.account}/{found.name}")
    return found
