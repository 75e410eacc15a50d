# SPDX-License-Identifier: Apache-2.0
"""The lists of tunnels that servers gave this node: what is wanted of it, and whether that is the whole."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from epic.agent.runtime import store
from epic.agent.runtime.completeness import Completeness
from epic.agent.runtime.store import Saver
from epic.agent.workload import plan, storage
from epic.agent.workload.plan import WorkloadTunnel
from epic.agent.workload.storage import Listed, Versioned

log = logging.getLogger(__name__)

_MANIFESTS = "manifests"


class TunnelLists:
    """Lists by label, one for each account and server that the manifests name.

    What is taken in holds from then on; the disk follows, whenever it can.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._saver = Saver(directory)
        self._lists: dict[str, Listed] = {}
        self._begun: dict[str, Listed] = {}
        """Those that are not known to be whole."""
        self._known = Completeness([_MANIFESTS])
        self.tunnels: Mapping[int, WorkloadTunnel] = {}
        """Of all lists, by id."""

    @property
    def complete(self) -> bool:
        """Whether what no list names may go."""
        return self._known.complete

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the disk now."""
        return self._saver.problems

    def restore(self) -> None:
        """Go on with what was written; a list of which something cannot be read is not known to be whole."""
        try:
            self._lists, self._begun, complaints = storage.load(self._directory)
        except store.Damaged as error:
            complaints = (str(error),)
            store.remove(self._directory)
        for complaint in complaints:
            path = self._directory / store.FILE
            log.error("%s: %s; waiting for the server to list the tunnels again", path, complaint)
        self._merge()

    def expect(self, labels: Collection[str], *, complete: bool) -> None:
        """The manifests name these; unless `complete`, they may name others that cannot be read now."""
        kept = set(labels) if complete else {*labels, *self._lists, *self._begun}
        for label in (self._lists.keys() | self._begun.keys()) - kept:
            listed = self._lists.pop(label, None) or self._begun[label]
            self._save(storage.rows(label, {}, {*listed.tunnels, *listed.stale}))
            self._save(storage.list_row(label, None))
        self._begun = {label: listed for label, listed in self._begun.items() if label in kept}
        self._known.expect([_MANIFESTS, *kept])
        if complete:
            self._known.mark(_MANIFESTS)
        self._known.mark(*(label for label in kept if label in self._lists))
        self._merge()

    def update(self, label: str, updated: Mapping[str, Versioned], removed: Collection[str]) -> None:
        """A server lists these tunnels, by name, otherwise than before, or no more."""
        listed = self._lists.get(label)
        if listed is None:
            # Not yet known to be whole: it counts, and is written when it is.
            listed = self._begun.setdefault(label, Listed())
            listed.stale.update(removed)
        else:
            self._save(storage.rows(label, updated, removed))
        listed.tunnels.update(updated)
        for name in removed:
            listed.tunnels.pop(name, None)
        self._merge()

    def mark(self, label: str, revision: int) -> None:
        """What the server lists is whole, as of this revision."""
        if label not in self._lists:
            self._lists[label] = listed = self._begun.pop(label, Listed())
            self._save(storage.rows(label, listed.tunnels, listed.stale - listed.tunnels.keys()))
            listed.stale.clear()
        self._lists[label].revision = revision
        self._save(storage.list_row(label, revision))
        self._known.mark(label)
        self._merge()

    def versions(self, label: str) -> dict[str, str]:
        """By name, those of the tunnels that a server lists."""
        return {name: listed.version for name, listed in self._of(label).tunnels.items()}

    def ids(self, label: str) -> frozenset[int]:
        """Of the tunnels that a server lists."""
        return frozenset(listed.tunnel.id for listed in self._of(label).tunnels.values())

    def revisions(self) -> dict[str, int]:
        """The revision of each list, by label."""
        return {label: listed.revision for label, listed in self._lists.items()}

    async def run(self) -> None:
        """Write changes until cancelled."""
        await self._saver.run()

    def close(self) -> None:
        """Write what is left."""
        self._saver.close()

    def _of(self, label: str) -> Listed:
        return self._lists.get(label) or self._begun.get(label) or Listed()

    def _save(self, rows: store.Rows) -> None:
        self._saver.save(rows)
        self._saver.flush()

    def _merge(self) -> None:
        lists = sorted({**self._begun, **self._lists}.items())
        tunnels = (tuple(found.tunnel for found in listed.tunnels.values()) for _, listed in lists)
        self.tunnels, complaints = plan.merge(tunnels)
        for complaint in complaints:
            log.error("%s", complaint)
