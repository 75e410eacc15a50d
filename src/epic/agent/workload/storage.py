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
    stale: set[str] = field(default_factory=set, repr=False)
    """Names of rows on disk that are to go once the list is whole."""


class Loaded(NamedTuple):
    """The lists on disk by label, and what of it made no sense."""

    whole: dict[str, Listed]
    begun: dict[str, Listed]
    """Those of which a row made no sense, without it."""
    complaints: tuple[str, ...]


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


def load(directory: Path) -> Loaded:
    """The last lists; raises `store.Damaged`."""
    lists: dict[str, Listed] = {}
    complaints: dict[str, str] = {}
    for _, found in store.read(directory, [_LIST]):
        for row in found:
            lists[row.name] = listed = Listed()
            try:
                listed.revision = int(row.version)
            except ValueError as error:
                complaints[row.name] = f"{row.name}: {error}"
    for kind, found in store.read(directory, [f"{_TUNNEL}{label}" for label in lists]):
        label = kind.removeprefix(_TUNNEL)
        for row in found:
            try:
                tunnel = plan.read(json.loads(row.body))
            except ValueError as error:
                lists[label].stale.add(row.name)
                complaints[label] = f"{label}: {error}"
            else:
                lists[label].tunnels[row.name] = Versioned(row.version, tunnel)
    whole = {label: listed for label, listed in lists.items() if label not in complaints}
    begun = {label: lists[label] for label in complaints}
    return Loaded(whole, begun, tuple(complaints.values()))


def _text(tunnel: WorkloadTunnel) -> str:
    return json.dumps(plan.document(tunnel), sort_keys=True, separators=(",", ":"))
