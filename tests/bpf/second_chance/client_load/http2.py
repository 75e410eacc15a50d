# SPDX-License-Identifier: Apache-2.0
"""HTTP/2, as much of it as one request at a time needs."""

from __future__ import annotations

from exchange import Broken, Exchange, body_of, check, path_of

WINDOW = 1 << 30
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field in HPACK, without the table."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Http2(Exchange):
    """h2 with prior knowledge."""

    kind = "h2"
    _stream = -1

    def begin(self) -> None:
        self._may_send = 65535
        settings = (4).to_bytes(2, "big") + WINDOW.to_bytes(4, "big")
        self._transport.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(_SETTINGS, 0, 0, settings)
            + frame(_WINDOW_UPDATE, 0, 0, WINDOW.to_bytes(4, "big"))
        )

    def send(self, number: int) -> None:
        self._stream += 2
        self._answer = bytearray()
        body = body_of(number)
        if len(body) > self._may_send:
            raise Broken("the peer opens no window")
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path_of(number))]
        fields += [(b":authority", b"shop"), (b"content-length", b"%d" % len(body))]
        headers = b"".join(literal(*each) for each in fields)
        sent = frame(_HEADERS, _END_HEADERS | (0 if body else _END_STREAM), self._stream, headers)
        for at in range(0, len(body), 16384):
            last = _END_STREAM if at + 16384 >= len(body) else 0
            sent += frame(_DATA, last, self._stream, body[at : at + 16384])
        self._may_send -= len(body)
        self._transport.write(sent)

    def data_received(self, data: bytes) -> None:
        # Frames of the connection come without a request, too.
        if self._wanted and not self._wanted.done():
            super().data_received(data)
            return
        self._buffer += data
        try:
            self.take()
        except Broken as error:
            self._fail(str(error))

    def take(self) -> bool:
        whole = False
        while len(self._buffer) >= 9:
            size = int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < 9 + size:
                break
            kind, flags = self._buffer[3], self._buffer[4]
            payload = bytes(self._buffer[9 : 9 + size])
            stream = int.from_bytes(self._buffer[5:9], "big")
            del self._buffer[: 9 + size]
            whole = self._take_frame(kind, flags, stream, payload) or whole
        return whole

    def _take_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bool:
        """Whether the answer is whole with it."""
        if kind == _SETTINGS and not flags & _ACK:
            self._transport.write(frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW_UPDATE and stream == 0:
            self._may_send += int.from_bytes(payload, "big")
        elif kind == _HEADERS and payload[:1] != b"\x88":
            raise Broken(f"no 200 but {payload[:8].hex()}")
        elif kind == _DATA:
            self._answer += payload
        elif kind not in (_SETTINGS, _PING, _WINDOW_UPDATE, _HEADERS):
            raise Broken("goaway" if kind == _GOAWAY else f"frame of type {kind}")
        if kind not in (_DATA, _HEADERS) or not flags & _END_STREAM:
            return False
        check(self._number, bytes(self._answer))
        return True
