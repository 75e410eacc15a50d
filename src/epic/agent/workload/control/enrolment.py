# SPDX-License-Identifier: Apache-2.0
"""This node's certificate for one account: asked for with the account's credential, then renewed."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import grpc

from epic.ads.delta.client import mtls_channel
from epic.agent.control.certificate import (
    AUTHORITIES,
    IDENTITY,
    CertificateRenewer,
    RenewalError,
    run_pki,
)
from epic.agent.runtime.files import write_atomically
from epic.client import PREFIX, EpicClient
from epic.controller.desired import EpicConnection
from epic.errors import Unavailable
from epic.proto import epic_pb2_grpc

_ISSUER = "agents.crt"
_ADDRESS = "address"
# Of the request only the key counts.
_NAME = "workload"
_REMEDY = "the node asks for one with the credential of its manifests"


class Enrolment:
    """The files of one account, in a directory of their own below `directory`."""

    def __init__(
        self,
        connection: EpicConnection,
        node: str,
        ca: Path | None,
        directory: Path,
        channel: Callable[[], grpc.aio.Channel | None],
    ) -> None:
        self._connection = connection
        self._node = node
        self._ca = ca
        self._path = directory / _directory_name(connection)
        self.renewer = CertificateRenewer(
            self._path, _NAME, channel, stub=epic_pb2_grpc.WorkloadServiceStub, remedy=_REMEDY
        )

    async def ensure(self) -> float:
        """See that there is a certificate; how long it is valid yet, in seconds. Raises EpicError."""
        left = await self._left()
        if left <= 0:
            await self.enrol()
            left = await self._left()
        if left <= 0:
            raise Unavailable("the certificate that this node got has ended; is its clock right?")
        return left

    async def enrol(self) -> None:
        """Ask for a certificate, and where and by which authorities the server is known. Raises EpicError.

        What is there stays when the answer is none.
        """
        try:
            await self._enrol()
        except (RenewalError, OSError, KeyError, ValueError) as error:
            raise Unavailable(f"this node gets no certificate: {error}") from error

    def forget(self) -> None:
        """The server refuses the certificate."""
        (self._path / IDENTITY).unlink(missing_ok=True)

    def channel(self) -> grpc.aio.Channel:
        """A channel to the server, on which the certificate is shown; raises OSError."""
        address = (self._path / _ADDRESS).read_text(encoding="utf-8")
        return mtls_channel(address, self._path / AUTHORITIES, self._path / IDENTITY)

    async def _left(self) -> float:
        if not all((self._path / name).exists() for name in (_ADDRESS, AUTHORITIES, _ISSUER, IDENTITY)):
            return 0
        try:
            life = await self.renewer.look_at_file()
        except RenewalError:
            return 0
        return life.not_after - time.time()

    async def _enrol(self) -> None:
        for path in (self._path.parent, self._path):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        request = str((await run_pki(self._path, "csr", "--name", _NAME, "--renew"))["request"])
        reply = await asyncio.to_thread(self._ask, request)
        host = urlsplit(self._connection.server).hostname or ""
        host = f"[{host}]" if ":" in host else host
        write_atomically(self._path / _ADDRESS, f"{host}:{int(str(reply['port']))}".encode())
        write_atomically(self._path / AUTHORITIES, str(reply["authorities"]).encode())
        write_atomically(self._path / _ISSUER, str(reply["issuer"]).encode())
        await run_pki(self._path, "install", given=str(reply["certificate"]).encode())

    def _ask(self, request: str) -> dict[str, object]:
        connection = self._connection
        with EpicClient(connection.server, connection.username, connection.password, self._ca) as client:
            return client.create(_path(connection, self._node), {"request": request})


def _directory_name(connection: EpicConnection) -> str:
    """One for each account of a server, whatever their names are made of."""
    text = "\n".join((connection.server, connection.account, connection.username, connection.cluster))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _path(connection: EpicConnection, node: str) -> str:
    query = urlencode({"cluster": connection.cluster, "node": node})
    return f"{PREFIX}/accounts/{quote(connection.account, safe='')}/workload-nodes/certificates?{query}"
