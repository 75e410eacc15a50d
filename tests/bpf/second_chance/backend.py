# SPDX-License-Identifier: Apache-2.0
"""The backends; runs alone, with nothing but Python's own library: `backend.py ADDRESS CERTIFICATE KEY`.

HTTP/1.1 with WebSocket upgrades on one port, the same in TLS on another, and downloads on a third. A
request is answered with its path and the checksum of its body, padded to `?SIZE` bytes; a WebSocket message
with itself. A download is as many bytes as the first line says, also when the client has closed its side.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
import sys
import zlib

HTTP, TLS, DOWNLOADS = 8080, 8443, 8081
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Http(asyncio.Protocol):
    """One connection of HTTP/1.1; an upgrade makes it echo messages."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while self._pending and (self._take_message() if self._upgraded else self._take_request()):
            pass

    def _take_request(self) -> bool:
        """Answer one request; false when it is not whole."""
        end = self._pending.find(b"\r\n\r\n")
        if end < 0:
            return False
        lines = bytes(self._pending[:end]).split(b"\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines[1:])}
        whole = end + 4 + int(headers.get(b"content-length", b"0"))
        if len(self._pending) < whole:
            return False
        body = bytes(self._pending[end + 4 : whole])
        del self._pending[:whole]
        if b"sec-websocket-key" in headers:
            self._upgrade(headers[b"sec-websocket-key"])
        else:
            self._answer(lines[0].split()[1], body)
        return True

    def _answer(self, path: bytes, body: bytes) -> None:
        _, _, size = path.partition(b"?")
        text = (b"%s %08x\n" % (path, zlib.crc32(body))).ljust(int(size or 0), b".")
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))

    def _upgrade(self, key: bytes) -> None:
        accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept
        )
        self._upgraded = True

    def _take_message(self) -> bool:
        """Repeat one message; false when it is not whole. Clients mask with zeros."""
        length, head = self._pending[1] & 0x7F if len(self._pending) > 1 else 0, 6
        if length == 126:
            length, head = int.from_bytes(self._pending[2:4], "big"), 8
        if len(self._pending) < head + length:
            return False
        opening = bytes([self._pending[0], self._pending[1] & 0x7F]) + self._pending[2 : head - 4]
        self._transport.write(opening + self._pending[head : head + length])
        del self._pending[: head + length]
        return True


async def download(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What was asked for, then the end."""
    size = int(await reader.readline())
    writer.write(bytes(size))
    await writer.drain()
    writer.close()


async def serve(address: str, certificate: str, key: str) -> None:
    """Until killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    loop = asyncio.get_running_loop()
    await loop.create_server(Http, address, HTTP, backlog=1024)
    await loop.create_server(Http, address, TLS, ssl=context, backlog=1024)
    await asyncio.start_server(download, address, DOWNLOADS, backlog=1024)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
