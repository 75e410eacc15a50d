# SPDX-License-Identifier: Apache-2.0
"""The stream of one account: what its control plane says that this node's tunnels are."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import grpc

from epic.ads.delta.client import DeltaClient
from epic.ads.snapshot import NODE_STATE, WORKLOAD_TYPES, Resources
from epic.agent.runtime.log_once import LogOnce
from epic.agent.workload.control.enrolment import Enrolment
from epic.agent.workload.lists import TunnelLists
from epic.agent.workload.plan import read_resource
from epic.agent.workload.storage import Versioned
from epic.controller.desired import EpicConnection
from epic.errors import EpicError
from epic.live import Place
from epic.proto import epic_pb2

log = logging.getLogger(__name__)

_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 30.0
_LOOK_SECONDS = 5.0
# When nothing is heard for so long, the server may have another port or other authorities than it had.
# Each node comes at a time of its own, and ever more seldom.
_SILENT_SECONDS, _LONGEST_SILENT_SECONDS = 180.0, 3600.0


class TunnelIntake:
    """The handler of the stream. A tunnel that makes no sense stays what it was, and stops no other."""

    def __init__(self, label: str, lists: TunnelLists, changed: Callable[[], None]) -> None:
        self._label = label
        self._lists = lists
        self._changed = changed

    async def apply(self, type_url: str, updated: Resources, removed: Sequence[str]) -> str | None:
        """See `epic.ads.delta.client.Handler`."""
        wrong: list[str] = []
        if type_url == NODE_STATE:
            for resource in updated.values():
                self._lists.mark(self._label, epic_pb2.NodeState.FromString(resource.value).revision)
        else:
            found = {}
            for name, resource in updated.items():
                try:
                    found[name] = Versioned(resource.version, read_resource(resource.value))
                except ValueError as error:
                    wrong.append(str(error))
            self._lists.update(self._label, found, removed)
        self._changed()
        if wrong:
            log.error("%s: %s; it stays what it was", self._label, wrong[0])
        return wrong[0] if wrong else None

    def versions(self, type_url: str) -> Mapping[str, str]:
        """See `epic.ads.delta.client.Handler`."""
        return {} if type_url == NODE_STATE else self._lists.versions(self._label)


class TunnelSession:
    """Keeps `intake` at what the server has: enrols where needed, and connects again for ever."""

    def __init__(
        self, connection: EpicConnection, node: str, ca: Path | None, directory: Path, intake: TunnelIntake
    ) -> None:
        self._name = Place(connection.account, connection.cluster, node).id
        self._intake = intake
        self._enrolment = Enrolment(connection, node, ca, directory, lambda: self.channel)
        self._client: DeltaClient | None = None
        self._account = connection.account
        self._troubles = LogOnce(log)
        self._task: asyncio.Task[None] | None = None

    @property
    def channel(self) -> grpc.aio.Channel | None:
        """That of the running stream; None between streams."""
        return self._client.channel if self._client is not None else None

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong now, a line each."""
        return (*self._troubles.problems, *self._enrolment.renewer.problems)

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name=f"tunnels of {self._account}")

    def stop(self) -> None:
        """End; the intake hears nothing more. Does not wait."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        delay = _FIRST_SECONDS
        while True:
            try:
                left = await self._enrolment.ensure()
                self._troubles.report("enrolment", "")
                if await self._follow(left):
                    delay = _FIRST_SECONDS
            except EpicError as error:
                self._troubles.report("enrolment", f"tunnels of account {self._account}: {error}")
            except Exception as error:
                # Whatever it is, the node must hear of its tunnels again.
                self._troubles.report("enrolment", f"tunnels of account {self._account}: {error!r}")
                log.debug("the session ended", exc_info=error)
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - spreads reconnections
            delay = min(delay * 2, _LONGEST_SECONDS)

    async def _follow(self, seconds: float) -> bool:
        """Follow the stream until the certificate is refused or has ended; whether anything was heard."""
        refused = asyncio.Event()
        client = self._client = DeltaClient(
            self._enrolment.channel, self._name, WORKLOAD_TYPES, self._intake, on_refused=refused.set
        )
        works: list[asyncio.Task[object]] = [
            asyncio.create_task(work)
            for work in (
                client.run(),
                self._enrolment.renewer.run(),
                self._mind_silence(client),
                refused.wait(),
            )
        ]
        try:
            await asyncio.wait(works, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            self._client = None
        if refused.is_set():
            self._enrolment.forget()
        for work in works:
            if not work.cancelled():
                work.result()  # what has failed says so
        return client.heard

    async def _mind_silence(self, client: DeltaClient) -> None:
        """Enrol anew when nothing was heard for minutes; the next connection is made by what is told."""
        since, patience = time.monotonic(), _spread(_SILENT_SECONDS)
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            if client.heard:
                self._troubles.report("silence", "")
                since, patience = now, _spread(_SILENT_SECONDS)
            elif now - since >= patience:
                text = f"tunnels of account {self._account}: nothing is heard of the control plane"
                try:
                    await self._enrolment.enrol()
                except EpicError as error:
                    self._troubles.report("silence", f"{text}, and {error}")
                else:
                    self._troubles.report("silence", f"{text}; this node has enrolled anew")
                since, patience = time.monotonic(), min(2 * patience, _spread(_LONGEST_SILENT_SECONDS))


def _spread(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1)  # noqa: S311 - nodes are to come at different times
