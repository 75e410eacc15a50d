# SPDX-License-Identifier: Apache-2.0
"""Where a sequence goes on whose last number cannot be read. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from epic.cache.views import Snapshot
from epic.model.nodes import Quarantine
from epic.model.resources import GWProxy, Tunnel
from epic.model.runs import Run

_SKIPPED = 100_000
"""What was given out beyond all that is still in use, at most; a tunnel's number has 32 bits."""


def beyond_use(snapshot: Snapshot, sequence: str) -> int:
    """A number after which none of the sequence is in use, or was lately."""
    find = _IN_USE.get(sequence)
    return max(find(snapshot), default=0) + _SKIPPED if find is not None else _SKIPPED


def _named(kind: str) -> Callable[[Snapshot], Iterator[int]]:
    def names(snapshot: Snapshot) -> Iterator[int]:
        keys = snapshot.view(kind).keys()
        return (int(name) for _, name in keys if name.isdecimal())

    return names


def _services(snapshot: Snapshot) -> Iterator[int]:
    return (proxy.status.service for proxy in snapshot.view(GWProxy.kind).list())


_IN_USE: Mapping[str, Callable[[Snapshot], Iterator[int]]] = {
    "tunnel": _named(Tunnel.kind),
    "run": _named(Run.kind),
    "quarantine": _named(Quarantine.kind),
    "service": _services,
}
