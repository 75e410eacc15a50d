# SPDX-License-Identifier: Apache-2.0
"""Hearing that somebody takes rules or set elements of an nftables table away."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Collection
from typing import Literal

from epic.agent.netlink import rtnetlink as rt

_NETLINK_NETFILTER = 12
_GROUP_NFTABLES = 7
_SUBSYSTEM_NFTABLES = 10
_FAMILY_INET = 1
_HEADER_BYTES = 4
"""Of `struct nfgenmsg`, which begins with the family."""
_TABLE_NAME = 1
"""The attribute that names the table; it has this number in messages about all kinds of objects."""
_SET_NAME = 2
# A table, chain, rule or set was deleted; a chain or rule was added.
_RULES = {2, 5, 8, 11, 3, 6}
_ELEMENT = 14
_RECEIVE_BYTES = 1 << 17


Change = Literal["rules", "elements"]


def change(message: rt.Message, table: str, elements: Collection[str]) -> Change | None:
    """What of the table `inet TABLE` was removed or replaced, if anything was.

    Of elements only those of the sets `elements` count: other sets' come and go by themselves.
    """
    subsystem, kind = message.kind >> 8, message.kind & 0xFF
    if subsystem != _SUBSYSTEM_NFTABLES or kind not in _RULES | {_ELEMENT}:
        return None
    if not message.body or message.body[0] != _FAMILY_INET:
        return None
    values = rt.attributes(message.body, _HEADER_BYTES)
    if _name(values.get(_TABLE_NAME, b"")) != table:
        return None
    if kind in _RULES:
        return "rules"
    return "elements" if _name(values.get(_SET_NAME, b"")) in elements else None


def monitor(
    table: str, elements: Collection[str], changed: Callable[[Change], None], own: Collection[int] = ()
) -> Callable[[], None]:
    """Call `changed` in the running loop after changes by others; the result ends it.

    `own` are the numbers of processes whose changes are no news.
    """
    loop = asyncio.get_running_loop()
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER)
    channel.bind((0, 1 << _GROUP_NFTABLES - 1))

    def readable() -> None:
        found: set[Change | None] = set()
        try:
            while data := channel.recv(_RECEIVE_BYTES):
                news = (message for _, message in rt.messages(data) if message.sender not in own)
                found.update(change(message, table, elements) for message in news)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            found.add("rules")
        for kind in sorted(kind for kind in found if kind):
            changed(kind)

    loop.add_reader(channel, readable)

    def stop() -> None:
        loop.remove_reader(channel)
        channel.close()

    return stop


def _name(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
