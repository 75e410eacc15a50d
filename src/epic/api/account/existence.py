# SPDX-License-Identifier: Apache-2.0
"""Whether an account exists, for who needs nothing of what it says."""

from __future__ import annotations

from epic.errors import NotFound
from epic.model.resources import Account
from epic.store.interface import Reader


def check_account(reader: Reader, name: str) -> None:
    """Raise NotFound if there is no such account; one that cannot be read is there."""
    if not reader.exists(Account, "", name):
        raise NotFound(f"Account {name!r} does not exist")
