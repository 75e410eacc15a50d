# SPDX-License-Identifier: Apache-2.0
"""Routing rules: ours, and the kernel's own, without which a host reaches nobody."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Collection
from typing import NamedTuple

from epic.agent.netlink import rtnetlink as rt
from epic.agent.netlink.objects import MAIN_TABLE

log = logging.getLogger(__name__)

_DEFAULT_TABLE = 253
_TO_TABLE = 1
_FRA_PRIORITY, _FRA_TABLE = 6, 15


class Rule(NamedTuple):
    """Which table the kernel looks into for all packets of a family, and when."""

    family: int
    preference: int
    table: int


_OF_THE_KERNEL = (
    Rule(socket.AF_INET, 32766, MAIN_TABLE),
    Rule(socket.AF_INET, 32767, _DEFAULT_TABLE),
    Rule(socket.AF_INET6, 32766, MAIN_TABLE),
)


class Rules:
    """Netlink in the network namespace of the thread that makes it. Methods block and raise OSError."""

    def __init__(self, ours: Collection[Rule] = ()) -> None:
        self._channel = rt.Channel()
        self._ours = ours
        self._seen: set[Rule] = set()

    def close(self) -> None:
        """Close the socket; the rules stay."""
        self._channel.close()

    def ensure(self) -> None:
        """Add those of ours that are missing, and of the kernel's those that there were before.

        `ip rule flush` removes all of a family. Who had done without one of the kernel's before goes on so.
        """
        there = self._read(socket.AF_INET) | self._read(socket.AF_INET6)
        for rule in self._ours:
            if rule not in there:
                log.warning("the routing rule of table %d is missing: adding it", rule.table)
                self._add(rule)
        looked_into = {(rule.family, rule.table) for rule in there}
        for rule in _OF_THE_KERNEL:
            if (rule.family, rule.table) in looked_into:
                self._seen.add(rule)
            elif rule in self._seen:
                log.warning("somebody removed the routing rule of table %d: adding it", rule.table)
                self._add(rule)

    def _read(self, family: int) -> set[Rule]:
        found = set()
        request = rt.ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        try:
            for body in self._channel.dump(rt.GETRULE, request):
                values = rt.attributes(body, rt.ROUTE.size)
                if body[0] == family and body[7] == _TO_TABLE and not body[1] and not body[2]:
                    preference = int.from_bytes(values.get(_FRA_PRIORITY, b""), "little")
                    found.add(Rule(family, preference, rt.table(body, values)))
        except OSError as error:
            # A kernel without IPv6 has no rules of it.
            if error.errno != errno.EAFNOSUPPORT:
                raise
        return found

    def _add(self, rule: Rule) -> None:
        body = (
            rt.ROUTE.pack(rule.family, 0, 0, 0, rule.table, 0, 0, _TO_TABLE, 0)
            + rt.attribute(_FRA_PRIORITY, rule.preference.to_bytes(4, "little"))
            + rt.attribute(_FRA_TABLE, rule.table.to_bytes(4, "little"))
        )
        self._channel.change(rt.Request(rt.NEWRULE, rt.CREATE, body))
