# SPDX-License-Identifier: Apache-2.0
"""An instance's namespace with real sockets in every state, opened by a client made of single packets."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, replace
from typing import Any

from frames import Address, ip
from namespaces import Namespace, eventually, join
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

LINK = "chance0"
_INSIDE_LINK = "eth0"
_MAC, _CLIENT_MAC = "02:00:00:00:02:01", "02:00:00:00:02:02"
_ETH_P_ALL = 3
PORT, BOTH_FAMILIES_PORT = 80, 81
"""Of a listener for each public address, and of one for all of either family."""
CLIENT_NUMBER = 1_000_000_000
"""The first sequence number of every client."""


@dataclass(frozen=True)
class Connection:
    """Which packets come next in a connection, as its client knows it."""

    client: Address
    public: Address
    client_port: int
    sequence: int
    acknowledged: int
    public_port: int = PORT

    def packet(self, flags: str = "A", payload: bytes = b"", **changes: Any) -> Packet:
        """The client's next packet."""
        fields = {"seq": self.sequence, "ack": self.acknowledged if "A" in flags else 0, "window": 65535}
        ports = {"sport": self.client_port, "dport": self.public_port}
        segment = TCP(**(ports | fields | changes), flags=flags)
        return ip(self.client, self.public) / segment / payload

    def moved(self, sequence: int = 0, acknowledged: int = 0) -> Connection:
        """With other numbers."""
        return replace(
            self,
            sequence=(self.sequence + sequence) % (1 << 32),
            acknowledged=(self.acknowledged + acknowledged) % (1 << 32),
        )


class Instance:
    """Listens on its public addresses; `netns` is what the host's namespace calls its own."""

    def __init__(self, host: Namespace, publics: tuple[Address, ...], clients: tuple[Address, ...]) -> None:
        self.namespace = Namespace(ipv6=True)
        self._host = host
        join(host, LINK, self.namespace, _INSIDE_LINK)
        self.namespace.run(f"ip link set {_INSIDE_LINK} address {_MAC}")
        for address in publics:
            suffix = " nodad" if address.version == 6 else ""
            self.namespace.run(f"ip addr add {address}/{address.max_prefixlen} dev lo{suffix}")
        for client in clients:
            self.namespace.run(
                f"ip route add {client}/{client.max_prefixlen} dev {_INSIDE_LINK}",
                f"ip neigh add {client} lladdr {_CLIENT_MAC} dev {_INSIDE_LINK} nud permanent",
            )
        shown = host.run(f"ip -o link show {LINK}")
        self.netns = int(shown.split("link-netnsid")[1].split()[0])
        self._listeners = {(public, PORT): self._listen(str(public), PORT) for public in publics}
        both = self._listen("::", BOTH_FAMILIES_PORT)
        self._listeners |= {(public, BOTH_FAMILIES_PORT): both for public in publics}
        with host:
            self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            self._wire.bind((LINK, 0))
            self._wire.settimeout(5)

    def close(self) -> None:
        self._wire.close()
        for listener in self._listeners.values():
            listener.close()
        self._host.run(f"ip link del {LINK}")
        self.namespace.close()

    def begin(self, client: Address, public: Address, port: int, public_port: int = PORT) -> Connection:
        """A SYN was sent and answered; the instance holds a request socket, or has given a cookie."""
        opening = Connection(client, public, port, CLIENT_NUMBER, 0, public_port)
        self._send(opening.packet("S", options=[("MSS", 1400)]))
        answer = self._receive(port)
        assert answer.flags == "SA"
        return opening.moved(1, answer.seq + 1)

    def open(
        self, client: Address, public: Address, port: int, public_port: int = PORT
    ) -> tuple[Connection, socket.socket]:
        """An established connection, and the instance's socket of it."""
        begun = self.begin(client, public, port, public_port)
        self._send(begun.packet())
        accepted, _ = self._listeners[public, public_port].accept()
        return begun, accepted

    def half_close(self, client: Address, public: Address, port: int) -> tuple[Connection, socket.socket]:
        """The client has said all; the instance has not: its socket goes on."""
        opened, accepted = self.open(client, public, port)
        self._send(opened.packet("FA"))
        assert eventually(lambda: self._state(port) == "CLOSE-WAIT")
        return opened.moved(1), accepted

    def wait_in_time_wait(self, client: Address, public: Address, port: int) -> Connection:
        """The instance closed first, and remembers it."""
        opened, accepted = self.open(client, public, port)
        accepted.close()
        self._receive(port, "F")
        closing = opened.moved(0, 1)
        self._send(closing.packet("FA"))
        assert eventually(lambda: self._state(port) == "TIME-WAIT")
        return closing.moved(1)

    def give_cookies(self, always: bool) -> None:
        """Answer every SYN with a cookie, and remember none."""
        self.namespace.sysctl("ipv4/tcp_syncookies", 2 if always else 1)

    def _state(self, port: int) -> str | None:
        shown = self.namespace.run(f"ss -Htan state all dport = {port}").split()
        return shown[0] if shown else None

    def _listen(self, address: str, port: int) -> socket.socket:
        with self.namespace:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((address, port))
        listener.listen(64)
        return listener

    def _send(self, packet: Packet) -> None:
        self._wire.send(bytes(Ether(src=_CLIENT_MAC, dst=_MAC) / packet))

    def _receive(self, port: int, flag: str = "") -> TCP:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            data, sender = self._wire.recvfrom(65536)
            if sender[2] == socket.PACKET_OUTGOING:
                continue
            frame = Ether(data)
            if TCP in frame and frame[TCP].dport == port and (not flag or flag in str(frame[TCP].flags)):
                return frame[TCP]
        raise TimeoutError(f"the instance sent nothing to port {port} in 5 s; {os.getpid()}")
