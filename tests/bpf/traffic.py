# SPDX-License-Identifier: Apache-2.0
"""Real traffic through a network: connections, datagrams, pings."""

from __future__ import annotations

import hashlib
import socket
import struct
from concurrent.futures import ThreadPoolExecutor

from namespaces import Namespace
from path_network import INSIDE, INSIDE6, NODE, NODE6, Address, Network

DATA = hashlib.shake_128(b"epic").digest(4 << 20)
UDP_SEGMENT = 103
"""Socket option of Linux: cut what is sent into datagrams of this size."""


def pings(network: Network, count: int = 1, inner: int = 4, size: int = 56) -> bool:
    """Whether the node answers the instance."""
    source, target = (INSIDE, NODE) if inner == 4 else (INSIDE6, NODE6)
    with network.instance as namespace:
        try:
            namespace.run(f"ping -c {count} -i 0.05 -W 0.5 -s {size} -I {source} {target}")
        except AssertionError:
            return False
    return True


def family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def tcp_pair(
    network: Network, inner: int = 4, port: int = 8080, target: Address | None = None
) -> tuple[socket.socket, socket.socket]:
    """A connection from the instance to the node: the instance's socket, then the node's."""
    source, node = (INSIDE, NODE) if inner == 4 else (INSIDE6, NODE6)
    return tcp_between(network.instance, source, network.node, target or node, target or node, port)


def tcp_between(
    near: Namespace, source: Address, far: Namespace, listen: Address, target: Address, port: int = 8080
) -> tuple[socket.socket, socket.socket]:
    """A connection to where the far side listens, by the name that the near side has for it."""
    with far:
        listener = socket.create_server((str(listen), port), family=family(listen))
    with near:
        client = socket.socket(family(source))
        client.settimeout(5)
        client.bind((str(source), 0))
        client.connect((str(target), port))
    server, peer = listener.accept()
    listener.close()
    assert peer[0] == str(source)
    server.settimeout(5)
    return client, server


def transfer(sender: socket.socket, receiver: socket.socket, data: bytes = DATA) -> bytes:
    """All of the data from one to the other."""
    received = bytearray()
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(sender.sendall, data)
        while len(received) < len(data):
            received += receiver.recv(1 << 20)
        sending.result()
    return bytes(received)


def exchange(client: socket.socket, server: socket.socket, data: bytes = DATA) -> None:
    """All of the data both ways, one after the other, and it must be the same."""
    for ends in ((client, server), (server, client)):
        assert transfer(*ends, data) == data


def send_segments(sender: socket.socket, data: bytes, size: int, to: tuple[str, int]) -> None:
    """One GSO packet of datagrams, as QUIC sends them."""
    options = [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("=H", size))]
    sender.sendmsg([data], options, 0, to)
