# SPDX-License-Identifier: Apache-2.0
"""The REST server's certificate: a renewed one is shown without a restart, a broken one is not taken."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from epic.control.certificate import follow_certificate
from epic.control.settings import RestSettings
from epic.pki import operations
from epic.pki.operations import Pki


def make(directory: Path, *names: str) -> None:
    operations.control(Pki(directory, datetime.now(UTC)), ["localhost", *names], None, timedelta(days=9))


class Server:
    """A server that shows what `follow_certificate` gives it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        make(directory)
        self.rest = RestSettings(certificate=directory / "server.crt", key=directory / "server.key")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.rest.certificate, self.rest.key)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[Callable[[], Awaitable[set[str]]]]:
        async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        server = await asyncio.start_server(close, "127.0.0.1", 0, ssl=self.context)
        port = server.sockets[0].getsockname()[1]
        trust = ssl.create_default_context(cafile=self.directory / "ca.crt")

        async def names() -> set[str]:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=trust, server_hostname="localhost"
            )
            found = writer.get_extra_info("peercert")["subjectAltName"]
            writer.close()
            return {name for _, name in found}

        task = asyncio.create_task(follow_certificate(self.context, self.rest, pause=0.01))
        try:
            yield names
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            server.close()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


async def test_a_renewed_certificate_is_shown(server: Server) -> None:
    async with server.following() as names:
        assert await names() == {"localhost"}
        make(server.directory, "epic.example.net")
        async with asyncio.timeout(60):
            while await names() != {"localhost", "epic.example.net"}:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)


async def test_a_broken_certificate_is_not_taken(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async with server.following() as names:
        assert await names() == {"localhost"}
        server.rest.certificate.write_text("-----BEGIN")
        async with asyncio.timeout(60):
            while "stays as it was" not in caplog.text:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)
        assert await names() == {"localhost"}
