# SPDX-License-Identifier: Apache-2.0
"""Credentials that were verified: right ones while their user is unchanged, wrong ones of a hash for good."""

from __future__ import annotations

from epic.model.resources import User
from epic.store.interface import Reader

_USERS_MAX = 10_000
_REFUSED_MAX = 10_000


class Verified:
    """What was verified, by a keyed digest of name and password.

    A user has one password: what is remembered is one digest for each user, whatever anybody asks for.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._users: dict[bytes, dict[str, User]] = {}
        # By account and name, the longest known first.
        self._digests: dict[tuple[str, str], bytes] = {}
        # A hash and a digest that is not its password's: that stays true.
        self._refused: dict[tuple[str, bytes], None] = {}

    def users(self, digest: bytes) -> dict[str, User]:
        """The users, by account, whose credential it is, as they are now."""
        found = self._users.get(digest, {})
        for user in list(found.values()):
            if self._reader.find_readable(User, user.account, user.name) != user:
                self._forget((user.account, user.name))
        return found

    def remember(self, digest: bytes, user: User) -> None:
        """It is this user's."""
        key = (user.account, user.name)
        self._forget(key)
        if len(self._digests) >= _USERS_MAX:
            self._forget(next(iter(self._digests)))
        self._digests[key] = digest
        self._users.setdefault(digest, {})[user.account] = user

    def refuse(self, password_hash: str, digest: bytes) -> None:
        """It is not that of the hash."""
        if len(self._refused) >= _REFUSED_MAX:
            del self._refused[next(iter(self._refused))]
        self._refused[password_hash, digest] = None

    def is_refused(self, password_hash: str, digest: bytes) -> bool:
        """Whether it is known not to be that of the hash; may be asked from any thread."""
        return (password_hash, digest) in self._refused

    def _forget(self, key: tuple[str, str]) -> None:
        digest = self._digests.pop(key, None)
        if digest is not None:
            users = self._users[digest]
            del users[key[0]]
            if not users:
                del self._users[digest]
