# SPDX-License-Identifier: Apache-2.0
"""WebSocket."""

from __future__ import annotations

from exchange import Broken, Exchange, body_of


class WebSocket(Exchange):
    """Messages, which the backend repeats."""

    kind = "websocket"
    _is_open = False

    async def start(self) -> None:
        self._expect(0)
        self._transport.write(
            b"GET /0 HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==\r\n\r\n"
        )
        await self._answered()

    def send(self, number: int) -> None:
        self._message = body_of(number) or b"%d" % number
        self._transport.write(self._frame(0x80, bytes(4)))

    def _frame(self, masked: int, mask: bytes) -> bytes:
        length = len(self._message)
        head = bytes([masked | length]) if length < 126 else bytes([masked | 126]) + length.to_bytes(2, "big")
        return b"\x82" + head + mask + self._message

    def take(self) -> bool:
        if not self._is_open:
            if b"\r\n\r\n" not in self._buffer:
                return False
            if not self._buffer.startswith(b"HTTP/1.1 101"):
                raise Broken(bytes(self._buffer[:30]).decode())
            self._buffer.clear()
            self._is_open = True
            return True
        wanted = self._frame(0, b"")
        if len(self._buffer) < len(wanted):
            return False
        if self._buffer != wanted:
            raise Broken("another message")
        self._buffer.clear()
        return True
