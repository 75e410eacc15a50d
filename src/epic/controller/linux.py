# SPDX-License-Identifier: Apache-2.0
"""The source of a Linux host: a directory of manifests, read whole whenever something in it changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from watchfiles import Change, awatch

from epic.client import EpicClient
from epic.controller.apply import Applier, failures
from epic.controller.classes import CoreSettings
from epic.controller.core import translate
from epic.controller.desired import Desired, EpicConnection
from epic.controller.documents import manifest_files, read_file
from epic.controller.objects import ClientObject, Objects, Problem, parse
from epic.controller.state import StateFile
from epic.errors import EpicError, Invalid

_RESYNC_SECONDS = 60.0
_RETRY_FIRST_SECONDS = 1.0
_RETRY_LAST_SECONDS = 30.0
_DEBOUNCE_MILLISECONDS = 100

log = logging.getLogger(__name__)


class Connections(NamedTuple):
    """The accounts that the manifests name; unless `complete`, a file that cannot be read may name others."""

    found: tuple[EpicConnection, ...]
    complete: bool


class ManifestDirectory:
    """The objects in a directory. A file that turns bad counts as it last was."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._good: dict[Path, list[ClientObject]] = {}

    def read(self) -> tuple[Objects, list[Problem], bool]:
        """The objects, what is wrong, and whether every file is known, now or from earlier."""
        problems: list[Problem] = []
        known = True
        good: dict[Path, list[ClientObject]] = {}
        for path in manifest_files(self._path):
            objects, faults = _read(path)
            problems += faults
            if not faults:
                good[path] = objects
            elif path in self._good:
                good[path] = self._good[path]
            else:
                known = False
        self._good = good
        merged: dict[object, ClientObject] = {}
        for path, objects in good.items():
            for obj in objects:
                first = merged.setdefault(obj.ref, obj)
                if first is not obj:
                    text = f"the same object is also in {first.source}, which counts; keep one of them"
                    problems.append(Problem(str(path), str(obj.ref), "Duplicate", text))
        return Objects(merged.values()), problems, known


def _read(path: Path) -> tuple[list[ClientObject], list[Problem]]:
    try:
        return parse(read_file(path))
    except Invalid as error:
        return [], [Problem(str(path), "file", "Invalid", str(error).removeprefix(f"{path}: "))]


class LinuxController:
    """Follows a directory of manifests as others follow Kubernetes, and tells EPIC."""

    def __init__(
        self,
        manifests: Path,
        cluster: str,
        node_name: str,
        node_address: str,
        ca: Path | None,
        state_file: Path,
    ) -> None:
        self._path = manifests
        self._settings = CoreSettings(cluster, node_name, node_address)
        self._ca = ca
        self._directory = ManifestDirectory(manifests)
        self._clients: dict[EpicConnection, EpicClient] = {}
        self._connections: Connections | None = None
        self._changed = asyncio.Condition()
        self._said: frozenset[str] = frozenset()
        self._applier = Applier(StateFile(state_file), self._client_of)

    async def connection_changes(self) -> AsyncIterator[Connections]:
        """The accounts as soon as they are known, and again after each change."""
        seen: Connections | None = None
        while True:
            async with self._changed:
                while self._connections is None or self._connections == seen:
                    await self._changed.wait()
                seen = self._connections
            yield seen

    async def run(self) -> None:
        """Follow the directory until cancelled."""
        dirty = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(dirty))
            group.create_task(self._loop(dirty))

    async def _loop(self, dirty: asyncio.Event) -> None:
        retry = _RETRY_FIRST_SECONDS
        while True:
            dirty.clear()
            fine = await self._resync()
            pause = _RESYNC_SECONDS if fine else retry
            retry = _RETRY_FIRST_SECONDS if fine else min(retry * 2, _RETRY_LAST_SECONDS)
            try:
                await asyncio.wait_for(dirty.wait(), pause)
            except TimeoutError:
                continue
            retry = _RETRY_FIRST_SECONDS

    async def _watch(self, dirty: asyncio.Event) -> None:
        while True:
            try:
                async for _ in awatch(self._path, watch_filter=_is_visible, debounce=_DEBOUNCE_MILLISECONDS):
                    dirty.set()
            except OSError as error:
                log.warning(
                    "%s cannot be watched (%s); it is read every %d s", self._path, error, _RESYNC_SECONDS
                )
            await asyncio.sleep(_RESYNC_SECONDS)

    async def _resync(self) -> bool:
        try:
            desired, known = await asyncio.to_thread(self._desired)
            await self._announce(Connections(desired.connections, known))
            outcomes = await asyncio.to_thread(self._applier.reconcile, desired, prune=known)
        except EpicError as error:
            self._say({str(error)})
            return False
        for outcome in outcomes:
            if outcome.action in {"created", "configured", "deleted"}:
                log.info("%s %s as %s", outcome.object, outcome.action, outcome.address.uid)
        failed = failures(outcomes)
        self._say({*map(str, desired.problems), *failed})
        return not failed

    def _desired(self) -> tuple[Desired, bool]:
        objects, problems, known = self._directory.read()
        desired = translate(objects, self._settings)
        connections = list(desired.connections)
        if not known:
            # The unknown file may be the one that named them.
            connections += [c for c in self._applier.connections() if c not in connections]
        everything = (*problems, *desired.problems)
        return replace(desired, problems=everything, connections=tuple(connections)), known

    def _client_of(self, connection: EpicConnection) -> EpicClient:
        if connection not in self._clients:
            self._clients[connection] = EpicClient(
                connection.server, connection.username, connection.password, self._ca
            )
        return self._clients[connection]

    async def _announce(self, found: Connections) -> None:
        if found != self._connections:
            async with self._changed:
                self._connections = found
                self._changed.notify_all()

    def _say(self, messages: set[str]) -> None:
        """Log what is wrong once, and that it is over."""
        for message in sorted(messages - self._said):
            log.warning("%s", message)
        if self._said and not messages:
            log.info("%s: everything is right again", self._path)
        self._said = frozenset(messages)


def _is_visible(_: Change, path: str) -> bool:
    # Keys beside the manifests count as well; editors' hidden files do not.
    return not Path(path).name.startswith(".")
