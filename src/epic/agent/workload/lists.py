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
from epic.agent.workload.storage import Listed

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
        """Go on with what was written; what cannot be read is as if it had never been."""
        try:
            self._lists = storage.load(self._directory)
        except (store.Damaged, ValueError) as error:
            path = self._directory / store.FILE
            log.error("%s: %s; waiting for the servers to list the tunnels again", path, error)
            store.remove(self._directory)
        self._merge()

    def expect(self, labels: Collection[str], *, complete: bool) -> None:
        """The manifests name these; unless `complete`, they may name others that cannot be read now."""
        kept = set(labels) if complete else {*labels, *self._lists}
        for label in self._lists.keys() - kept:
            self._save(label, None)
        self._known.expect([_MANIFESTS, *kept])
        if complete:
            self._known.mark(_MANIFESTS)
        self._known.mark(*(label for label in kept if label in self._lists))
        self._merge()

    def take(self, label: str, listed: Listed) -> bool:
        """A server has listed this node's tunnels; False when it lists what it did."""
        before = self._lists.get(label)
        if before is not None and before == listed:
            return False
        self._save(label, listed)
        self._known.mark(label)
        self._merge()
        return True

    def of(self, label: str) -> Listed | None:
        """What a server listed last."""
        return self._lists.get(label)

    def revisions(self) -> dict[str, int]:
        """The revision of each list, by label."""
        return {label: listed.revision for label, listed in self._lists.items()}

    async def run(self) -> None:
        """Write changes until cancelled."""
        await self._saver.run()

    def close(self) -> None:
        """Write what is left."""
        self._saver.close()

    def _save(self, label: str, listed: Listed | None) -> None:
        self._saver.save(storage.rows(label, self._lists.get(label), listed))
        self._saver.flush()
        if listed is None:
            del self._lists[label]
        else:
            self._lists[label] = listed

    def _merge(self) -> None:
        self.tunnels, complaints = plan.merge(listed.tunnels for _, listed in sorted(self._lists.items()))
        for complaint in complaints:
            log.error("%s", complaint)
