# SPDX-License-Identifier: Apache-2.0
"""The node's certificate at the control plane: renewed over the stream's connection, long before it ends."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import grpc

from epic.agent.runtime.files import write_atomically
from epic.agent.runtime.log_once import LogOnce
from epic.processes import communicate
from epic.proto import epic_pb2, epic_pb2_grpc

log = logging.getLogger(__name__)

IDENTITY = "agent.pem"
"""The node's key and certificate."""
AUTHORITIES = "ca.crt"
"""The authorities to trust for the control plane."""

_DUE = 2 / 3
_DUE_SPREAD = 0.05
# With less of its life left, that it was not renewed is a problem.
_LATE_LEFT = 1 / 6
_LOOK_SECONDS = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0
_CALL_SECONDS = 10.0
_PUBLIC = 0o644


class RenewalError(Exception):
    """Why there is no new certificate."""


class Stub(Protocol):
    """The calls of a service that renews certificates."""

    def __init__(self, channel: Any) -> None: ...

    @property
    def RenewCertificate(self) -> Any: ...  # noqa: N802 - the name that gRPC calls


@dataclass(frozen=True)
class Life:
    """Since and until when a certificate is valid, in seconds since 1970."""

    not_before: int
    not_after: int

    @property
    def seconds(self) -> int:
        return self.not_after - self.not_before

    def due(self, node: str) -> float:
        """When to renew it: not all nodes at the same time, and each once."""
        spread = random.Random(f"{node} {self.not_before}").uniform(-_DUE_SPREAD, _DUE_SPREAD)  # noqa: S311
        return self.not_before + self.seconds * (_DUE + spread)

    def is_late(self, now: float) -> bool:
        """Whether it should have been renewed long ago."""
        return self.not_after - now < self.seconds * _LATE_LEFT


class CertificateRenewer:
    """Looks after the certificate; the next connection shows the new one, the present one goes on.

    Keys and requests are made by epic-pki in a process of its own: they need libraries that take megabytes.
    """

    def __init__(
        self,
        directory: Path,
        node: str,
        channel: Callable[[], grpc.aio.Channel | None],
        clock: Callable[[], float] = time.time,
        *,
        stub: type[Stub] = epic_pb2_grpc.AgentServiceStub,
        remedy: str = "run site.yml for this host",
    ) -> None:
        """`directory` has the files of epic-pki; `remedy` is what helps when the certificate has ended."""
        self._directory = directory
        self._node = node
        self._channel = channel
        self._clock = clock
        self._stub = stub
        self._remedy = remedy
        self._troubles = LogOnce(log)
        self._seen: tuple[int, int] | None = None
        self._pause = _FIRST_PAUSE
        self.life: Life | None = None
        """Of the certificate; None while there is none."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the certificate now, a line each."""
        return self._troubles.problems

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            pause = await self.look()
            await asyncio.sleep(pause)

    async def look(self) -> float:
        """Renew the certificate if it is due; returns in how many seconds to look again."""
        try:
            life = await self.look_at_file()
        except RenewalError as error:
            self.life = None
            text = f"this node has no certificate; {self._remedy}. {error}"
            self._troubles.report("certificate", text)
            return _LOOK_SECONDS
        now = self._clock()
        wait = life.due(self._node) - now
        if wait > 0:
            self._troubles.report("certificate", "")
            return min(wait, _LOOK_SECONDS)
        try:
            await self._renew()
        except RenewalError as error:
            self._tell(life, now, str(error))
            pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE)
            return min(pause, _LOOK_SECONDS)
        self._pause = _FIRST_PAUSE
        return 0

    def _tell(self, life: Life, now: float, why: str) -> None:
        end = _text(life.not_after)
        if now > life.not_after:
            text = f"the certificate of this node ended at {end}, and the control plane refuses it"
            self._troubles.report("certificate", f"{text}; {self._remedy}, which gives it another")
        elif life.is_late(now):
            self._troubles.report(
                "certificate", f"the certificate of this node ends at {end}; not renewed: {why}"
            )
        else:
            log.info("the certificate, which ends at %s, is not renewed yet: %s", end, why)

    async def look_at_file(self) -> Life:
        """The life of the certificate that is there; raises RenewalError."""
        identity = self._directory / IDENTITY
        try:
            status = identity.stat()
        except OSError as error:
            raise RenewalError(f"{identity}: {error.strerror}") from error
        seen = (status.st_ino, status.st_mtime_ns)
        if self.life is None or seen != self._seen:
            shown = await run_pki(self._directory, "show")
            self.life = Life(int(str(shown["not_before"])), int(str(shown["not_after"])))
            self._seen = seen
        return self.life

    async def _renew(self) -> None:
        request = str((await run_pki(self._directory, "csr", "--name", self._node, "--renew"))["request"])
        reply = await self._ask(request.encode())
        await run_pki(self._directory, "install", given=reply.certificate)
        life = await self.look_at_file()
        log.info("the certificate was renewed; it is valid until %s", _text(life.not_after))
        self._trust(reply.authorities)

    async def _ask(self, request: bytes) -> epic_pb2.RenewCertificateReply:
        # Taken only now: a stub that is made for a channel that was closed meanwhile makes gRPC crash.
        channel = self._channel()
        if channel is None:
            raise RenewalError("there is no connection to the control plane")
        asked = epic_pb2.RenewCertificateRequest(request=request)
        try:
            reply: epic_pb2.RenewCertificateReply = await self._stub(channel).RenewCertificate(
                asked, timeout=_CALL_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            raise RenewalError(f"the control plane says {error.code().name}: {error.details()}") from error
        except grpc.aio.UsageError as error:
            raise RenewalError(str(error)) from error
        except asyncio.CancelledError:
            # So gRPC tells that the channel was closed meanwhile, too.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise RenewalError("the connection to the control plane was closed") from None
        return reply

    def _trust(self, authorities: bytes) -> None:
        """Trust these for the control plane from the next connection on."""
        try:
            path = self._directory / AUTHORITIES
            if not authorities or path.read_bytes() == authorities:
                return
            ssl.create_default_context(cadata=authorities.decode())
            write_atomically(path, authorities, _PUBLIC)
        except (OSError, ValueError) as error:
            log.error("the control plane's authorities stay as they were: %s", error)
        else:
            log.info("the control plane has other authorities from now on")


async def run_pki(directory: Path, *arguments: str, given: bytes = b"") -> dict[str, object]:
    """What epic-pki answers; raises RenewalError."""
    command = (sys.executable, "-m", "epic.pki.main", "--directory", str(directory), *arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    out, err = await communicate(process, given)
    if process.returncode:
        raise RenewalError(
            " ".join(err.decode(errors="replace").split()) or f"epic-pki: {process.returncode}"
        )
    answer = json.loads(out)
    if not isinstance(answer, dict):
        raise RenewalError("epic-pki gave no answer")
    return answer


def _text(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
