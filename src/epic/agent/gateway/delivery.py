# SPDX-License-Identifier: Apache-2.0
"""Delivery to instances: the routes of table 200, where `rules()` have the kernel look first."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from epic.agent.netlink import rtnetlink as rt
from epic.agent.netlink.objects import PROTOCOL, Netlink
from epic.agent.netlink.rules import Rule
from epic.bpf.dataplane import Address

TABLE = 200
INSTANCE_MAC = bytes.fromhex("020000000002")
"""Of the interface in an instance's network namespace: nobody there answers for its IPv6 addresses."""
_FORWARDING6 = Path("/proc/sys/net/ipv6/conf/all/forwarding")
_FAMILIES = ((socket.AF_INET, 32), (socket.AF_INET6, 128))
_UNICAST, _UNIVERSE, _LINK_SCOPE = 1, 0, 253
_RTA_DST, _RTA_OIF, _RTA_TABLE = 1, 4, 15


class Delivery:
    """Netlink in the network namespace of the thread that makes it. Methods block and raise OSError."""

    def __init__(self) -> None:
        self._channel = rt.Channel()
        self._netlink = Netlink()

    @property
    def port(self) -> int:
        """What messages about our own changes name as their sender."""
        return self._channel.port

    def close(self) -> None:
        """Close the sockets; the routes stay."""
        self._channel.close()
        self._netlink.close()

    def routes(self) -> dict[Address, int]:
        """Where the addresses of instances are delivered to: the index of the interface."""
        table = rt.attribute(_RTA_TABLE, TABLE.to_bytes(4, "little"))
        found: dict[Address, int] = {}
        for family, bits in _FAMILIES:
            request = rt.ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + table
            for body in self._channel.dump(rt.GETROUTE, request):
                values = rt.attributes(body, rt.ROUTE.size)
                ours = body[1] == bits and body[7] == _UNICAST and rt.table(body, values) == TABLE
                if ours and _RTA_OIF in values:
                    found[ip_address(values[_RTA_DST])] = int.from_bytes(values[_RTA_OIF], "little")
        return found

    def deliver(self, addresses: Iterable[Address], index: int) -> None:
        """Route these addresses to the interface, wherever they were routed to before."""
        addresses = tuple(addresses)
        for address in addresses:
            if address.version == 6:
                self._netlink.set_neighbour(index, address, INSTANCE_MAC)
        requests = [rt.Request(rt.NEWROUTE, rt.REPLACE, _route(address, index)) for address in addresses]
        for error in self._channel.change_all(requests):
            if error is not None:
                raise error


def rules() -> tuple[Rule, ...]:
    """One for each family that the kernel has."""
    families = (socket.AF_INET, socket.AF_INET6) if _FORWARDING6.exists() else (socket.AF_INET,)
    return tuple(Rule(family, 100, TABLE) for family in families)


def forwards6() -> bool:
    """Whether the kernel passes IPv6 packets on."""
    try:
        return _FORWARDING6.read_text(encoding="ascii").strip() != "0"
    except FileNotFoundError:
        return False


def _route(address: Address, index: int) -> bytes:
    family, scope = (socket.AF_INET, _LINK_SCOPE) if address.version == 4 else (socket.AF_INET6, _UNIVERSE)
    bits = len(address.packed) * 8
    return (
        rt.ROUTE.pack(family, bits, 0, 0, TABLE, PROTOCOL, scope, _UNICAST, 0)
        + rt.attribute(_RTA_DST, address.packed)
        + rt.attribute(_RTA_OIF, index.to_bytes(4, "little"))
    )
