# SPDX-License-Identifier: Apache-2.0
"""The lists of tunnels as they are kept on disk, so that a reboot needs no server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from epic.agent.runtime import store
from epic.agent.workload import plan
from epic.agent.workload.plan import WorkloadTunnel

_LIST = "list"
_TUNNEL = "tunnel of "


@dataclass(frozen=True, slots=True)
class Listed:
    """A server's list: each tunnel as it was, in few bytes, and what it means.

    `revision` is the server's number for the state that the list is of.
    """

    documents: Mapping[str, WorkloadTunnel] = field(repr=False)
    revision: int = 0

    @property
    def tunnels(self) -> tuple[WorkloadTunnel, ...]:
        """What they mean."""
        return tuple(self.documents.values())


def read(data: object, before: Listed | None = None) -> Listed:
    """A server's list; ValueError when it makes no sense. What is in the one `before` is not read again."""
    known = before.documents if before else {}
    found = ((_text(document), document) for document in plan.documents(data))
    documents = {text: known.get(text) or plan.read(document) for text, document in found}
    return Listed(documents, plan.revision(data))


def rows(label: str, before: Listed | None, after: Listed | None) -> store.Rows:
    """What a change of a list changes on disk; None: there is no such list."""
    old = {tunnel.id: text for text, tunnel in before.documents.items()} if before else {}
    new = {tunnel.id: text for text, tunnel in after.documents.items()} if after else {}
    kind = f"{_TUNNEL}{label}"
    found: dict[store.Key, store.Row] = {(kind, str(id_)): None for id_ in old.keys() - new.keys()}
    found |= {(kind, str(id_)): ("", text.encode()) for id_, text in new.items() if old.get(id_) != text}
    found[_LIST, label] = (str(after.revision), b"") if after else None
    return found


def load(directory: Path) -> dict[str, Listed]:
    """The last lists by label; raises `store.Damaged` or ValueError."""
    revisions = {row.name: row.version for _, found in store.read(directory, [_LIST]) for row in found}
    documents: dict[str, dict[str, WorkloadTunnel]] = {label: {} for label in revisions}
    for kind, found in store.read(directory, [f"{_TUNNEL}{label}" for label in revisions]):
        for row in found:
            text = row.body.decode()
            documents[kind.removeprefix(_TUNNEL)][text] = plan.read(json.loads(text))
    return {label: Listed(documents[label], int(number)) for label, number in revisions.items()}


def _text(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))
