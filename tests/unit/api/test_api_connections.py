# SPDX-License-Identifier: Apache-2.0
"""Who may have how many connections: every address gets in, none is kept out by what another one opens."""

from __future__ import annotations

import pytest

from epic.api.access.connections import Connection, Connections, Limits

LIMITS = Limits(64)


@pytest.fixture
def book() -> Connections:
    return Connections(LIMITS)


def flood(book: Connections, address: str, count: int = 200) -> list[Connection]:
    """Connections of one address, of which those that had to go are dropped."""
    dropped: list[Connection] = []
    for _ in range(count):
        connection = book.admit(address)
        connection.drop = lambda connection=connection: dropped.append(connection)  # type: ignore[misc]
    return dropped


def test_connections_without_a_request_are_bounded_and_the_oldest_goes(book: Connections) -> None:
    dropped = flood(book, "192.0.2.1")
    assert len(book) == LIMITS.unknown
    assert len(dropped) == 200 - LIMITS.unknown
    assert all(connection.ended for connection in dropped)


def test_who_has_many_connections_makes_room_for_who_has_few(book: Connections) -> None:
    kept: list[Connection] = []
    for host in range(3):
        kept.append(book.admit(f"198.51.100.{host}"))
        flood(book, "192.0.2.1")
    assert not any(connection.ended for connection in kept)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::5", "2001:db8:1:2:3::9"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::2"),
    ],
)
def test_addresses_of_one_site_count_together(book: Connections, one: str, other: str) -> None:
    assert book.admit(one).origin == book.admit(other).origin


def test_different_hosts_count_apart(book: Connections) -> None:
    assert book.admit("192.0.2.1").origin != book.admit("::ffff:192.0.2.2").origin


def test_an_account_has_so_many_connections_and_others_have_theirs(book: Connections) -> None:
    of_one = [book.admit("192.0.2.1") for _ in range(LIMITS.unknown)]
    while len(of_one) < LIMITS.account:
        assert of_one[-1].authenticated("one")
        of_one.append(book.admit("192.0.2.1"))
    assert all(connection.authenticated("one") for connection in of_one)
    late = book.admit("192.0.2.1")
    assert not late.authenticated("one")
    assert late.authenticated("other")
    of_one[0].end()
    assert book.admit("192.0.2.1").authenticated("one")


def test_all_accounts_together_leave_room_for_connections_without_a_request(book: Connections) -> None:
    refused = [
        account
        for account in range(8)
        for _ in range(LIMITS.account)
        if not book.admit("192.0.2.1").authenticated(f"a{account}")
    ]
    assert refused
    assert len(book) <= LIMITS.connections
    assert book._known_count == LIMITS.connections - LIMITS.unknown - LIMITS.administrators


def test_accounts_leave_room_for_connections_of_administrators(book: Connections) -> None:
    for account in range(8):
        for _ in range(LIMITS.account):
            book.admit("192.0.2.1").authenticated(f"a{account}")
    of_administrators = [book.admit("198.51.100.1") for _ in range(LIMITS.administrators)]
    assert of_administrators
    assert all(connection.authenticated("") for connection in of_administrators)


def test_a_connection_that_ended_while_its_credential_was_verified_is_not_counted(book: Connections) -> None:
    connection = book.admit("192.0.2.1")
    connection.end()
    assert connection.authenticated("one")
    assert len(book) == 0


def test_a_connection_changes_hands_and_is_counted_once(book: Connections) -> None:
    connection = book.admit("192.0.2.1")
    for account in ("one", "other", "", "one"):
        assert connection.authenticated(account)
        assert len(book) == 1
    connection.end()
    connection.end()
    assert len(book) == 0
    assert not book._of_account
    assert not book._unknown
