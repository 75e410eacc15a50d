# SPDX-License-Identifier: Apache-2.0
"""Delivery to instances: the routes of table 200, where `RULE` has the kernel look first."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address

from epic.agent.netlink import rtnetlink as rt
from epic.agent.netlink.objects import PROTOCOL
from epic.agent.netlink.rules import Rule

TABLE = 200
RULE = Rule(socket.AF_INET, 100, TABLE)
_UNICAST, _LINK_SCOPE = 1, 253
_RTA_DST, _RTA_OIF, _RTA_TABLE = 1, 4, 15


class Delivery:
    """Netlink in the network namespace of the thread that makes it. Methods block and raise OSError."""

    def __init__(self) -> None:
        self._channel = rt.Channel()

    @property
    def port(self) -> int:
        """What messages about our own changes name as their sender."""
        return self._channel.port

    def close(self) -> None:
        """Close the socket; the routes stay."""
        self._channel.close()

    def routes(self) -> dict[IPv4Address, int]:
        """Where the addresses of instances are delivered to: the index of the interface."""
        table = rt.attribute(_RTA_TABLE, TABLE.to_bytes(4, "little"))
        request = rt.ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0) + table
        found: dict[IPv4Address, int] = {}
        for body in self._channel.dump(rt.GETROUTE, request):
            values = rt.attributes(body, rt.ROUTE.size)
            if (
                body[1] == 32
                and body[7] == _UNICAST
                and rt.table(body, values) == TABLE
                and _RTA_OIF in values
            ):
                found[IPv4Address(values[_RTA_DST])] = int.from_bytes(values[_RTA_OIF], "little")
        return found

    def deliver(self, addresses: Iterable[IPv4Address], index: int) -> None:
        """Route these addresses to the interface, wherever they were routed to before."""
        requests = [rt.Request(rt.NEWROUTE, rt.REPLACE, _route(address, index)) for address in addresses]
        for error in self._channel.change_all(requests):
            if error is not None:
                raise error


def _route(address: IPv4Address, index: int) -> bytes:
    return (
        rt.ROUTE.pack(socket.AF_INET, 32, 0, 0, TABLE, PROTOCOL, _LINK_SCOPE, _UNICAST, 0)
        + rt.attribute(_RTA_DST, address.packed)
        + rt.attribute(_RTA_OIF, index.to_bytes(4, "little"))
    )
