# SPDX-License-Identifier: Apache-2.0
"""How the registry's kinds are cached. Pure."""

from __future__ import annotations

from epic.cache.compact import compact
from epic.cache.feed import FedKind
from epic.cache.views import CachedKind
from epic.kinds.kind import Kind, T
from epic.store.kinds import read_of


def cached_kind(kind: Kind[T]) -> CachedKind[T]:
    """The kind as views of it are asked for."""
    return CachedKind(kind.name, kind.indexes)


def fed_kind(kind: Kind[T]) -> FedKind:
    """The kind as a cache over a store holds it: as typed objects, found by the kind's indexes."""
    return FedKind(cached_kind(kind), lambda stored: compact(read_of(kind, stored)))
