# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1: kept alive, in TLS, and for one request alone."""

from __future__ import annotations

from exchange import Broken, Exchange, body_of, check, path_of

_UPSTREAM = b"x-envoy-upstream-service-time:"


class Http1(Exchange):
    """HTTP/1.1."""

    kind = "http1"
    last = False

    def send(self, number: int) -> None:
        body = body_of(number)
        ending = b"Connection: close\r\n" if self.last else b""
        head = b"POST %s HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n%s\r\n"
        self._transport.write(head % (path_of(number), len(body), ending) + body)

    def take(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        lines = bytes(self._buffer[:end]).lower().split(b"\r\n")
        if not lines[0].startswith(b"http/1.1 200"):
            raise Broken(lines[0].decode())
        (size,) = (int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        self.upstream = next((int(line.split(b":")[1]) for line in lines if line.startswith(_UPSTREAM)), None)
        if len(self._buffer) < end + 4 + size:
            return False
        check(self._number, bytes(self._buffer[end + 4 : end + 4 + size]))
        del self._buffer[: end + 4 + size]
        return True


class LastHttp1(Http1):
    """One request, after which the server closes."""

    kind = "short"
    last = True


class Tls(Http1):
    """HTTP/1.1 in TLS, which the gateway does not look into."""

    kind = "tls"
