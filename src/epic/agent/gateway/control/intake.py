# SPDX-License-Identifier: Apache-2.0
"""What the control plane sends: taken in, kept on disk, and held back where it takes too much at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from epic.ads.snapshot import NODE_STATE, Resources
from epic.agent.gateway.control import storage
from epic.agent.gateway.control.removals import RemovalGuard
from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.gateway.desired import NodeState
from epic.agent.runtime.log_once import LogOnce
from epic.agent.runtime.store import Saver

log = logging.getLogger(__name__)

# The word on the node follows removals at once; without it they are decided upon after so long.
_DECIDE_SECONDS = 1.0
_SHOWN = 5


class Intake:
    """The handler of the ADS stream. `changed` is called when the cache holds something else.

    `wanted_again` is called when a node that was removed is to be one again.
    """

    def __init__(
        self,
        cache: ResourceCache,
        saver: Saver,
        changed: Callable[[], None],
        wanted_again: Callable[[], None],
    ) -> None:
        self._cache = cache
        self._saver = saver
        self._changed = changed
        self._wanted_again = wanted_again
        self._guard = RemovalGuard(cache)
        self._timer: asyncio.TimerHandle | None = None
        self._forgetting: asyncio.Task[None] | None = None
        self._troubles = LogOnce(log)
        self.removed = False
        """The node leaves EPIC, or has left it."""

    @property
    def held(self) -> frozenset[str]:
        """Gateways that are to go and stay: see `RemovalGuard`."""
        return self._guard.held

    @property
    def problems(self) -> list[str]:
        """What was refused, and what is held back, a line each."""
        refused = list(self._cache.refused.values())
        more = [f"{len(refused) - _SHOWN} more resources are refused"] if len(refused) > _SHOWN else []
        return [*self._troubles.problems, *refused[:_SHOWN], *more]

    async def apply(self, type_url: str, updated: Resources, removed: Sequence[str]) -> str | None:
        """See `epic.ads.delta.client.Handler`. A resource that makes no sense stops no other."""
        for _ in self._cache.read_ahead(type_url, updated):
            await asyncio.sleep(0)
        through = self._guard.let_through(type_url, removed)
        self._guard.restore(type_url, updated)
        self._take(type_url, updated, through)
        if type_url == NODE_STATE and self._cache.node_state is not None:
            self._decide()
        elif self._guard.waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_DECIDE_SECONDS, self._decide_late)
        # An agent without state must not remove anything.
        if self._cache.complete:
            self._saver.flush()
            self._changed()
        return None

    def versions(self, type_url: str) -> Mapping[str, str]:
        """See `epic.ads.delta.client.Handler`."""
        return self._cache.versions(type_url)

    def drop_node(self) -> None:
        """The control plane says that the node is none any more, and that this is meant."""
        if not self.removed:
            self._guard.clear()
            self._cache.node_state = NodeState(removed=True)
            self._leave()
            self._changed()

    def _take(self, type_url: str, updated: Resources, removed: Sequence[str]) -> None:
        taken = self._cache.update(type_url, updated, removed)
        self._saver.save(storage.rows(type_url, taken, removed))

    def _decide_late(self) -> None:
        self._timer = None
        self._decide()
        if self._cache.complete:
            self._changed()

    def _decide(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        state = self._cache.node_state or NodeState()
        for type_url, names in self._guard.decide(state).items():
            self._take(type_url, {}, names)
        held = sorted(self._guard.held)
        self._troubles.report(
            "held",
            f"held back: {len(held)} gateways are to go at once, more than half of this node's, and nobody "
            f"said that this is meant: {', '.join(held[:_SHOWN])}, ..."
            if held
            else "",
        )
        if state.removed and not held:
            self._leave()
        elif self.removed and not state.removed:
            log.warning("the node is one of EPIC's again: starting anew")
            self._wanted_again()

    def _leave(self) -> None:
        if not self.removed:
            log.warning("the node leaves EPIC: everything of EPIC's that the agent has here is removed")
        self.removed = True
        self._cache.clear()
        self._forgetting = asyncio.create_task(self._saver.forget_all(), name="forget")
