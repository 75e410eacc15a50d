# SPDX-License-Identifier: Apache-2.0
"""The metrics of the control plane."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from epic import __version__, exposition
from epic.cache.store import CachedStore
from epic.control.settings import MetricsSettings
from epic.exposition import Family
from epic.heartbeats import Heartbeats
from epic.kinds.registry import KINDS
from epic.model.resources import Node
from epic.reconcile.service import ReconcilerService
from epic.workqueue.metrics import QueueMetrics


class ControlMetrics:
    """What a control plane shows of itself; to be used in its event loop.

    It costs no more with more gateways: they are the store's counts, and what each reconciler measured at the
    end of its last turn.
    """

    def __init__(
        self,
        store: CachedStore,
        heartbeats: Heartbeats,
        reconcilers: Mapping[str, ReconcilerService],
        failures: Counter[str],
    ) -> None:
        self._store = store
        self._heartbeats = heartbeats
        self._reconcilers = reconcilers
        self._failures = failures

    async def serve(self, settings: MetricsSettings) -> None:
        """Answer until cancelled; a control plane whose port somebody else has goes on without metrics."""
        await exposition.serve(settings.address, settings.port, self.render)
        await asyncio.get_running_loop().create_future()

    async def render(self) -> str:
        """All of them."""
        return exposition.exposition(
            (*self._process(), *self._stored(), *self._nodes(), *_turns(self._reconcilers), *self._queues())
        )

    def _process(self) -> Iterator[Family]:
        info = Family("epic_control_info", "gauge", "The control plane's version.")
        info.add(1, version=__version__)
        yield info
        failures = Family(
            "epic_control_part_failures_total", "counter", "How often a part of it failed and began again."
        )
        for part, count in sorted(self._failures.items()):
            failures.add(count, part=part)
        yield failures

    def _stored(self) -> Iterator[Family]:
        writable = Family("epic_control_store_writable", "gauge", "Whether the last write could be done.")
        writable.add(self._store.is_writable)
        yield writable
        snapshot = self._store.snapshot
        revision = Family("epic_control_store_revision", "counter", "Of the newest change.")
        revision.add(snapshot.revision)
        yield revision
        objects = Family("epic_control_objects", "gauge", "How many objects of a kind are stored.")
        unreadable = Family(
            "epic_control_unreadable_objects", "gauge", "How many objects of a kind cannot be read."
        )
        for kind in KINDS:
            view = snapshot.view(kind.name)
            objects.add(len(view), kind=kind.name)
            unreadable.add(sum(1 for _ in view.faults()), kind=kind.name)
        yield objects
        yield unreadable

    def _nodes(self) -> Iterator[Family]:
        silence = Family(
            "epic_control_node_silence_seconds",
            "gauge",
            "Time since an EPIC node's last report, or since the control plane's start.",
        )
        for node in self._store.list(Node):
            silence.add(self._heartbeats.of(node.name).silence.total_seconds(), node=node.name)
        yield silence

    def _queues(self) -> Iterable[Family]:
        return queue_families({name: service.measured for name, service in self._reconcilers.items()})


def _turns(reconcilers: Mapping[str, ReconcilerService]) -> Iterator[Family]:
    age = Family(
        "epic_control_turn_age_seconds",
        "gauge",
        "Time since the end of a reconciler's last turn; there is one each five seconds at least.",
    )
    for name, service in reconcilers.items():
        age.add(service.turn_age, reconciler=name)
    yield age


def queue_families(queues: Mapping[str, QueueMetrics]) -> Iterator[Family]:
    """The same measurements of each queue, by the name of its reconciler."""
    numbers = (
        ("depth", "gauge", "How many keys are due."),
        ("waiting", "gauge", "How many keys will be due later."),
        ("adds", "counter", "How often a key was added."),
        ("retries", "counter", "How often a key failed and was put back."),
    )
    for attribute, kind, text in numbers:
        total = "_total" if kind == "counter" else ""
        family = Family(f"epic_control_queue_{attribute}{total}", kind, text)
        for name, metrics in queues.items():
            family.add(getattr(metrics, attribute), reconciler=name)
        yield family
    histograms = (
        ("latency", "Time from when a key is due until it is taken."),
        ("work", "Time from when a key is taken until it is done."),
    )
    for attribute, text in histograms:
        family = Family(f"epic_control_queue_{attribute}_seconds", "histogram", text)
        for name, metrics in queues.items():
            durations = getattr(metrics, attribute)
            family.add_histogram(durations.bounds, durations.counts, durations.total, reconciler=name)
        yield family
