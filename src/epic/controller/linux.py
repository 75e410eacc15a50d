# SPDX-License-Identifier: Apache-2.0
"""The source of a Linux host: a directory of manifests, followed by what changes in it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from watchfiles import Change, awatch

from epic.client import EpicClient
from epic.controller.classes import CoreSettings
from epic.controller.core import Translator
from epic.controller.desired import Desired, EpicConnection
from epic.controller.directory import Look, ManifestDirectory
from epic.controller.mirror import Mirror, MirrorSettings, Outcome, StatusDirectory, failures
from epic.controller.objects import Ref
from epic.controller.state import StateFile
from epic.errors import EpicError

_RESYNC_SECONDS = 60.0
_RETRY_FIRST_SECONDS = 1.0
_RETRY_LAST_SECONDS = 30.0
_DEBOUNCE_MILLISECONDS = 100
CONFIRMATION = "confirm-removals"

log = logging.getLogger(__name__)


class Connections(NamedTuple):
    """The accounts that the manifests name, and those that have something of this host still.

    Unless `complete`, a file that cannot be read may name others.
    """

    found: tuple[EpicConnection, ...]
    complete: bool


@dataclass(frozen=True)
class HostSettings:
    """The host's manifests, who it is, and where it keeps what it made and writes statuses."""

    manifests: Path
    cluster: str
    node_name: str
    node_address: str
    ca: Path | None
    state_file: Path
    statuses: Path
    hold_removals_from: int = 10


class LinuxController:
    """Follows a directory of manifests as others follow Kubernetes, and tells EPIC."""

    def __init__(self, settings: HostSettings) -> None:
        self._settings = settings
        self._path = settings.manifests
        self._clients: dict[EpicConnection, EpicClient] = {}
        self._connections: Connections | None = None
        self._changed = asyncio.Condition()
        self._said: frozenset[str] = frozenset()
        self._statuses = StatusDirectory(settings.statuses)
        self._mirror = Mirror(
            StateFile(settings.state_file),
            self._client_of,
            MirrorSettings(
                f"{_word(settings.cluster)}/{_word(settings.node_name)}", settings.hold_removals_from
            ),
        )
        self._directory: ManifestDirectory | None = None
        self._translator: Translator | None = None
        self._paths: set[Path] | None = None
        """The files that have changed since the last look; None: any may have."""
        self._unreported: set[Ref] = set()

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
            paths, self._paths = self._paths, set()
            fine = await self._resync(paths)
            pause = _RESYNC_SECONDS if fine else retry
            retry = _RETRY_FIRST_SECONDS if fine else min(retry * 2, _RETRY_LAST_SECONDS)
            try:
                await asyncio.wait_for(dirty.wait(), pause)
            except TimeoutError:
                self._paths = None
                continue
            retry = _RETRY_FIRST_SECONDS

    async def _watch(self, dirty: asyncio.Event) -> None:
        while True:
            try:
                async for changes in awatch(
                    self._path, watch_filter=_is_visible, debounce=_DEBOUNCE_MILLISECONDS
                ):
                    if self._paths is not None:
                        self._paths |= {Path(path) for _, path in changes}
                    dirty.set()
            except OSError as error:
                log.warning(
                    "%s cannot be watched (%s); it is read every %d s", self._path, error, _RESYNC_SECONDS
                )
            self._paths = None
            await asyncio.sleep(_RESYNC_SECONDS)

    async def _resync(self, paths: set[Path] | None) -> bool:
        try:
            look, desired = await asyncio.to_thread(self._look, paths)
            complete = not (look.unseen.refs or look.unseen.files)
            await self._announce(Connections(self._used(desired), complete))
            outcomes = await asyncio.to_thread(self._reconcile, look, desired)
            await self._announce(Connections(self._used(desired), complete))
        except (EpicError, OSError) as error:
            self._paths = None
            self._say({str(error)})
            return False
        for outcome in outcomes:
            if outcome.action in {"created", "configured", "deleted"}:
                log.info("%s %s as %s", outcome.object, outcome.action, outcome.address.uid)
        failed = failures(outcomes)
        held = {self._held()} if self._mirror.held else set()
        warned = failures(outcomes, "warned")
        self._say({*map(str, desired.problems), *failed, *warned, *held})
        return not failed

    def _look(self, paths: set[Path] | None) -> tuple[Look, Desired]:
        state = self._mirror.state
        if self._directory is None or self._translator is None:
            sources = {owned.ref: owned.source for owned in state.owned.values()}
            self._directory = ManifestDirectory(self._path, sources)
            host = self._settings
            core = CoreSettings(host.cluster, host.node_name, host.node_address)
            self._translator = Translator(self._directory.objects, core)
        look = self._directory.read(paths)
        self._unreported |= look.changed
        desired = self._translator.update(look.changed, look.unseen)
        connections = list(desired.connections)
        if look.unseen.refs or look.unseen.files:
            # What is not seen may be what named them.
            connections += [c for c in state.logins.values() if c not in connections]
        everything = (*look.problems, *desired.problems)
        return look, replace(desired, problems=everything, connections=tuple(connections))

    def _used(self, desired: Desired) -> tuple[EpicConnection, ...]:
        """Those of the manifests and of what is on EPIC still: as long as it is, requests may come for it."""
        named = {(c.server, c.account) for c in desired.connections}
        left = (login for key, login in self._mirror.state.logins.items() if key not in named)
        return (*desired.connections, *left)

    def _reconcile(self, look: Look, desired: Desired) -> list[Outcome]:
        confirmation = self._settings.statuses / CONFIRMATION
        confirmed = confirmation.exists()
        outcomes = self._mirror.reconcile(desired, look.unseen, look.place, confirmed=confirmed)
        if confirmed:
            # It is about what was to be seen then, not about all that may come.
            confirmation.unlink(missing_ok=True)
        objects = self._directory.objects if self._directory is not None else None
        if objects is not None:
            self._statuses.update(objects, self._unreported, desired, outcomes, self._mirror.observed)
            self._unreported = set()
        self._statuses.tell_held(self._held() if self._mirror.held else "")
        return outcomes

    def _held(self) -> str:
        marker = self._settings.statuses / CONFIRMATION
        return f"{self._path}: {self._mirror.held}; if that is meant, create {marker}"

    def _client_of(self, connection: EpicConnection) -> EpicClient:
        if connection not in self._clients:
            self._clients[connection] = EpicClient(
                connection.server, connection.username, connection.password, self._settings.ca
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


def _word(name: str) -> str:
    return re.sub(r"[^\w.:@-]", "_", name)


def _is_visible(_: Change, path: str) -> bool:
    # Keys beside the manifests count as well; editors' hidden files do not.
    return not Path(path).name.startswith(".")
