# SPDX-License-Identifier: Apache-2.0
"""How long a tunnel is cut after its NAT has forgotten it, from the hello on."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from networks import hello
from path_network import EPIC, INSIDE, KEY, NODE, TUNNEL, Network, udp_socket

_PATIENCE = 5.0


def measure(pins: Path, object_file: Path, times: int) -> list[float]:
    """Milliseconds from the hello, with a port that the NAT chooses anew, to the first packet through."""
    network = Network(pins, object_file)
    try:
        network.program()
        with (
            udp_socket(network.node, NODE, 6080) as agent,
            udp_socket(network.node, NODE, 7000) as endpoint,
            udp_socket(network.instance, INSIDE, 7000) as instance,
        ):
            _say_hello(network, agent)
            _until_through(instance, endpoint)
            return [_rebind(network, agent, instance, endpoint) for _ in range(times)]
    finally:
        network.close()


def _rebind(
    network: Network, agent: socket.socket, instance: socket.socket, endpoint: socket.socket
) -> float:
    before = network.gateway.peer(TUNNEL)
    network.nat.run("conntrack -F")
    begun = time.perf_counter()
    _say_hello(network, agent)
    _until_through(instance, endpoint)
    took = time.perf_counter() - begun
    after = network.gateway.peer(TUNNEL)
    if before is None or after is None or before.port == after.port:
        raise RuntimeError("the NAT has not changed the tunnel's port")
    return took * 1000


def _say_hello(network: Network, agent: socket.socket) -> None:
    agent.sendto(hello(network.gateway, TUNNEL, KEY), (str(EPIC), 6080))


def _until_through(instance: socket.socket, endpoint: socket.socket) -> None:
    """Only a packet that is sent after the call counts."""
    endpoint.setblocking(False)
    mark = time.monotonic_ns().to_bytes(8, "big")
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        instance.sendto(mark, (str(NODE), 7000))
        try:
            while endpoint.recv(64) != mark:
                pass
            return
        except BlockingIOError:
            time.sleep(0.0001)
    raise RuntimeError("nothing comes through the tunnel")
