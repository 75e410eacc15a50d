# SPDX-License-Identifier: Apache-2.0
"""The lists of tunnels as they are kept on disk, so that a reboot needs no server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from epic.agent.runtime import store
from epic.agent.workload import plan
from epic.agent.workload.plan import WorkloadTunnel

_LIST = "list"
_TUNNEL = "tunnel of "


class Versioned(NamedTuple):
    """A tunnel as a server listed it, and the server's word for that version of it."""

    version: str
    tunnel: WorkloadTunnel


@dataclass(slots=True)
class Listed:
    """What a server lists, by name; `revision` is its number for the state that this is of."""

    tunnels: dict[str, Versioned] = field(default_factory=dict, repr=False)
    revision: int = 0


def rows(label: str, updated: Mapping[str, Versioned], removed: Iterable[str] = ()) -> store.Rows:
    """A change of a list as it is stored."""
    kind = f"{_TUNNEL}{label}"
    found: dict[store.Key, store.Row] = {(kind, name): None for name in removed}
    return found | {
        (kind, name): (listed.version, _text(listed.tunnel).encode()) for name, listed in updated.items()
    }


def list_row(label: str, revision: int | None) -> store.Rows:
    """That there is such a list, which is whole; None: there is none."""
    return {(_LIST, label): None if revision is None else (str(revision), b"")}


def load(directory: Path) -> dict[str, Listed]:
    """The last lists by label; raises `store.Damaged` or ValueError."""
    lists = {
        row.name: Listed(revision=int(row.version))
        for _, found in store.read(directory, [_LIST])
        for row in found
    }
    for kind, found in store.read(directory, [f"{_TUNNEL}{label}" for label in lists]):
        for row in found:
            tunnel = plan.read(json.loads(row.body))
            lists[kind.removeprefix(_TUNNEL)].tunnels[row.name] = Versioned(row.version, tunnel)
    return lists


def _text(tunnel: WorkloadTunnel) -> str:
    return json.dumps(plan.document(tunnel), sort_keys=True, separators=(",", ":"))
