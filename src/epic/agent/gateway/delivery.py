# SPDX-License-Identifier: Apache-2.0
"""Delivery to instances: the routes of table 200, and the rule that has the kernel look there first."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address

from epic.agent.netlink import rtnetlink as rt
from epic.agent.netlink.objects import MAIN_TABLE, PROTOCOL

log = logging.getLogger(__name__)

TABLE = 200
PREFERENCE = 100
_MAIN_PREFERENCE = 32766
_UNICAST, _LINK_SCOPE = 1, 253
_TO_TABLE = 1
_RTA_DST, _RTA_OIF, _RTA_TABLE = 1, 4, 15
_FRA_PRIORITY, _FRA_TABLE = 6, 15

Rule = tuple[int, int]
"""Preference and table."""


class Delivery:
    """Netlink in the network namespace of the thread that makes it. Methods block and raise OSError."""

    def __init__(self) -> None:
        self._channel = rt.Channel()
        self._has_main = False

    @property
    def port(self) -> int:
        """What messages about our own changes name as their sender."""
        return self._channel.port

    def close(self) -> None:
        """Close the socket; routes and rule stay."""
        self._channel.close()

    def routes(self) -> dict[IPv4Address, int]:
        """Where the addresses of instances are delivered to: the index of the interface."""
        table = rt.attribute(_RTA_TABLE, TABLE.to_bytes(4, "little"))
        request = rt.ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0) + table
        found: dict[IPv4Address, int] = {}
        for body in self._channel.dump(rt.GETROUTE, request):
            values = rt.attributes(body, rt.ROUTE.size)
            if body[1] == 32 and body[7] == _UNICAST and _table(body, values) == TABLE and _RTA_OIF in values:
                found[IPv4Address(values[_RTA_DST])] = int.from_bytes(values[_RTA_OIF], "little")
        return found

    def deliver(self, addresses: Iterable[IPv4Address], index: int) -> None:
        """Route these addresses to the interface, wherever they were routed to before."""
        requests = [rt.Request(rt.NEWROUTE, rt.REPLACE, _route(address, index)) for address in addresses]
        for error in self._channel.change_all(requests):
            if error is not None:
                raise error

    def ensure_rule(self) -> None:
        """Have the kernel look into table 200 first. What removed our rule may have removed main's, too."""
        rules = self._rules()
        if (PREFERENCE, TABLE) not in rules:
            log.warning("the routing rule of gateways is missing: adding it")
            self._add((PREFERENCE, TABLE))
        if MAIN_TABLE in {table for _, table in rules}:
            self._has_main = True
        elif self._has_main:
            log.warning("somebody removed the routing rule of the main table: adding it")
            self._add((_MAIN_PREFERENCE, MAIN_TABLE))

    def _rules(self) -> set[Rule]:
        found = set()
        request = rt.ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        for body in self._channel.dump(rt.GETRULE, request):
            values = rt.attributes(body, rt.ROUTE.size)
            if body[7] == _TO_TABLE and not body[1] and not body[2]:
                found.add((int.from_bytes(values.get(_FRA_PRIORITY, b""), "little"), _table(body, values)))
        return found

    def _add(self, rule: Rule) -> None:
        preference, table = rule
        body = (
            rt.ROUTE.pack(socket.AF_INET, 0, 0, 0, table, 0, 0, _TO_TABLE, 0)
            + rt.attribute(_FRA_PRIORITY, preference.to_bytes(4, "little"))
            + rt.attribute(_FRA_TABLE, table.to_bytes(4, "little"))
        )
        self._channel.change(rt.Request(rt.NEWRULE, rt.CREATE, body))


def _table(body: bytes, values: dict[int, bytes]) -> int:
    return int.from_bytes(values.get(_RTA_TABLE, body[4:5]), "little")


def _route(address: IPv4Address, index: int) -> bytes:
    return (
        rt.ROUTE.pack(socket.AF_INET, 32, 0, 0, TABLE, PROTOCOL, _LINK_SCOPE, _UNICAST, 0)
        + rt.attribute(_RTA_DST, address.packed)
        + rt.attribute(_RTA_OIF, index.to_bytes(4, "little"))
    )
