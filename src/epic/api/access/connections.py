# SPDX-License-Identifier: Apache-2.0
"""How many connections the REST API has open, for whom, and which goes when there are too many.

A connection belongs to its client's address until a request on it is authenticated, then to the account.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Network, ip_address

from epic.log_rate import LogRate

log = logging.getLogger(__name__)

STATE = "connection"
"""Under this name a request's ASGI state has its connection."""
_SITE_BITS = 64


@dataclass(frozen=True)
class Limits:
    """`connections` are those in all; the rest are shares of them."""

    connections: int = 8192

    @property
    def unknown(self) -> int:
        """Connections on which nobody was authenticated yet."""
        return self.connections // 8

    @property
    def account(self) -> int:
        """Connections of one account."""
        return self.connections // 4

    @property
    def administrators(self) -> int:
        """Connections that no account may have: administrators end what accounts do."""
        return self.connections // 16

    @property
    def streams(self) -> int:
        """Event streams (of runs) of the administrators of one account, or of those of none."""
        return self.connections // 8


class Connection:
    """One connection, from when it is accepted until `end`."""

    def __init__(self, book: Connections, origin: str) -> None:
        self._book = book
        self.origin = origin
        self.account: str | None = None
        self.ended = False
        self.drop: Callable[[], object] = lambda: None
        """Closes it at once, whatever it is at."""

    def authenticated(self, account: str) -> bool:
        """A request on it is the account's (that of administrators is empty). False: it has too many."""
        return self._book.assign(self, account)

    def end(self) -> None:
        """It is closed; may be said more than once."""
        self._book.remove(self)


class Connections:
    """All that are open. Every address gets in: to make room, the one with the most loses its oldest."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._log = LogRate(log)
        # By address, the oldest first.
        self._unknown: dict[str, dict[Connection, None]] = {}
        self._unknown_count = 0
        self._of_account: Counter[str] = Counter()
        self._known_count = 0

    def __len__(self) -> int:
        return self._unknown_count + self._known_count

    def admit(self, address: str) -> Connection:
        """Take in a connection from the address."""
        if self._unknown_count >= self._limits.unknown:
            self._make_room()
        connection = Connection(self, origin_of(address))
        self._unknown.setdefault(connection.origin, {})[connection] = None
        self._unknown_count += 1
        return connection

    def assign(self, connection: Connection, account: str) -> bool:
        """Let the connection be the account's, unless that has too many or there are too many of all."""
        # Who is gone already is answered nothing.
        if connection.account == account or connection.ended:
            return True
        limits = self._limits
        known = self._known_count - (connection.account is not None)
        most = limits.connections - limits.unknown - (limits.administrators if account else 0)
        if self._of_account[account] >= limits.account or known >= most:
            name = f"account {account!r}" if account else "the administrators"
            self._log.warning("%s: too many connections, one more was refused", name)
            return False
        self._release(connection)
        connection.account = account
        self._of_account[account] += 1
        self._known_count += 1
        return True

    def remove(self, connection: Connection) -> None:
        """Forget it."""
        connection.ended = True
        self._release(connection)

    def _release(self, connection: Connection) -> None:
        account, connection.account = connection.account, None
        if account is not None:
            self._known_count -= 1
            self._of_account[account] -= 1
            if not self._of_account[account]:
                del self._of_account[account]
            return
        found = self._unknown.get(connection.origin, {})
        if connection in found:
            del found[connection]
            self._unknown_count -= 1
            if not found:
                del self._unknown[connection.origin]

    def _make_room(self) -> None:
        largest = max(self._unknown.values(), key=len)
        oldest = next(iter(largest))
        self._log.warning(
            "too many connections without a request: closed the oldest of the %d from %s",
            len(largest),
            oldest.origin,
        )
        oldest.drop()
        self.remove(oldest)


def origin_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or an IPv6 network as sites have it."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv4Address):
        return str(found)
    # A socket of both families has IPv4 clients so.
    return str(found.ipv4_mapped or IPv6Network((found, _SITE_BITS), strict=False))
