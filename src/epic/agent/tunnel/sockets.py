# SPDX-License-Identifier: Apache-2.0
"""The sockets of control packets."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address

from epic.bpf.dataplane import Address
from epic.errors import Unavailable
from epic.model.naming import GUE_PORT

_IP_FREEBIND, _IPV6_FREEBIND = 15, 78  # linux/in.h; the socket module does not have them


def control_socket(
    family: socket.AddressFamily, address: Address | None = None, lane: int = 0
) -> socket.socket | None:
    """A socket for control packets of a lane, from `address` (which may come up later) or any of ours.

    None when the host does not speak the family at all.
    """
    try:
        channel = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    except OSError:
        return None
    port = GUE_PORT + lane
    try:
        if family == socket.AF_INET6:
            channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            channel.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            channel.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        channel.bind((str(address) if address is not None else "", port))
    except OSError as error:
        channel.close()
        where = f" of {address}" if address is not None else ""
        raise Unavailable(
            f"UDP port {port}{where} cannot be had ({error.strerror}); tunnels need it alone"
        ) from error
    return channel


def family_of(address: Address) -> socket.AddressFamily:
    """The sockets' word for it."""
    return socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
