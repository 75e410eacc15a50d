# SPDX-License-Identifier: Apache-2.0
"""Which list of siblings each node has, and who does not answer it, as it said last.

It is kept in memory, for it is told again within seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from epic.model.siblings import Sibling
from epic.model.values.naming import GatewayId
from epic.siblings.waiting import AWAY_SECONDS, SILENT_MAX, Said

_FORGET_SECONDS = 3600.0


@dataclass(frozen=True)
class _Report:
    at: float
    versions: Mapping[GatewayId, str]
    since: Mapping[GatewayId, float]
    silent_since: Mapping[str, float]
    """Addresses of nodes that do not answer; each with the time of the first report in a row that says so."""


class AppliedLists:
    """The lists that nodes have. Methods may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self._reports: dict[str, _Report] = {}

    def take(
        self, node: str, versions: Mapping[GatewayId, str], silent: Iterable[str] = ()
    ) -> set[GatewayId]:
        """A node has said which lists it has; returns the gateways of which it says another than before.

        `silent` are the addresses of siblings' nodes whose programs do not answer it.
        """
        now = self._clock()
        with self._lock:
            before = self._reports.get(node, _Report(now, {}, {}, {}))
            changed = {g for g, version in versions.items() if before.versions.get(g) != version}
            since = {gateway: now if gateway in changed else before.since[gateway] for gateway in versions}
            self._reports[node] = _Report(now, dict(versions), since, _silent_since(before, silent, now))
            for old in [n for n, report in self._reports.items() if now - report.at > _FORGET_SECONDS]:
                del self._reports[old]
        return changed

    def said(self, gateway: GatewayId, nodes: Iterable[str]) -> dict[str, Said]:
        """What each of the nodes said last of the gateway's list."""
        now = self._clock()
        with self._lock:
            reports = {node: self._reports.get(node) for node in nodes}
        return {node: self._of(gateway, report, now) for node, report in reports.items()}

    def silent(self, siblings: Collection[Sibling]) -> frozenset[str]:
        """Those of the nodes of a list whose programs have answered none of the others for `SILENT_MAX`.

        The others are those that report now. Of whom nobody reports nothing is known: it is not among them.
        """
        now = self._clock()
        with self._lock:
            reports = {s.node: self._reports[s.node] for s in siblings if s.node in self._reports}
        fresh = {node: report for node, report in reports.items() if now - report.at <= AWAY_SECONDS}
        return frozenset(s.node for s in siblings if _is_silent(s, fresh, now))

    def _of(self, gateway: GatewayId, report: _Report | None, now: float) -> Said:
        if report is None:
            return Said(None, now - self._began)
        since = report.since.get(gateway, now)
        return Said(report.versions.get(gateway), now - report.at, now - since)


def _silent_since(before: _Report, silent: Iterable[str], now: float) -> dict[str, float]:
    # Between two reports that are far apart a node may have answered for long.
    known = before.silent_since if now - before.at <= AWAY_SECONDS else {}
    return {address: known.get(address, now) for address in silent}


def _is_silent(sibling: Sibling, said: Mapping[str, _Report], now: float) -> bool:
    others = [report.silent_since for node, report in said.items() if node != sibling.node]
    begun = now - SILENT_MAX.total_seconds()
    return bool(others) and all(since.get(str(sibling.address), now) <= begun for since in others)
