# SPDX-License-Identifier: Apache-2.0
"""Single connections of the client's."""

from __future__ import annotations

import socket

from bed import Bed
from path_network import Address
from serving import PUBLIC_HTTP

REQUEST = b"POST /1 HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n\r\n"
ANSWER = b"HTTP/1.1 200"
TCP_REPAIR = 19


def bound(bed: Bed, public: Address, port: int = 0) -> tuple[socket.socket, int]:
    """A socket of the client, and its port."""
    with bed.client:
        opened = socket.socket(socket.AF_INET if public.version == 4 else socket.AF_INET6)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind(("", port))
    return opened, opened.getsockname()[1]


def connect(bed: Bed, public: Address, port: int = PUBLIC_HTTP, *, client_port: int = 0) -> socket.socket:
    """A connection of the client."""
    opened, _ = bound(bed, public, client_port)
    opened.settimeout(5)
    opened.connect((str(public), port))
    return opened


def port_of(opened: socket.socket) -> int:
    """The client's."""
    return int(opened.getsockname()[1])


def ask(opened: socket.socket, size: int = 0) -> None:
    """A request on it, with a body of that size."""
    opened.sendall(REQUEST % size + bytes(size))
    assert opened.recv(65536).startswith(ANSWER)


def read_all(opened: socket.socket) -> int:
    """Until the end; bytes."""
    total = 0
    while data := opened.recv(1 << 18):
        total += len(data)
    return total


def vanish(opened: socket.socket) -> None:
    """Close as a client that loses its power does: nobody is told."""
    opened.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    opened.close()
