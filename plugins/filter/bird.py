# Copyright: the EPIC developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that write names and secrets as BIRD 2 reads them."""

from __future__ import annotations

import re
from typing import Any

from ansible.errors import AnsibleFilterError

_SYMBOL_MAX = 63
_MD5_KEY_MAX = 80


def bird_symbol(name: str, prefix: str = "") -> str:
    """The symbol of a protocol, in apostrophes."""
    symbol = f"{prefix}{name}"
    if not re.fullmatch(r"[-A-Za-z0-9_.:]+", str(name)):
        raise AnsibleFilterError(
            f"{name!r} cannot be a name in BIRD; it may have letters, digits and - _ . : and no others"
        )
    if len(symbol) > _SYMBOL_MAX:
        raise AnsibleFilterError(
            f"{name!r} is too long for BIRD; it may have {_SYMBOL_MAX - len(prefix)} characters"
        )
    return f"'{symbol}'"


def bird_password(password: str) -> str:
    """The text of a TCP MD5 password, in quotes. Errors do not show it."""
    if not 1 <= len(password.encode()) <= _MD5_KEY_MAX:
        raise AnsibleFilterError(
            f"a BGP password must have 1 to {_MD5_KEY_MAX} bytes, for TCP MD5 takes no other"
        )
    if '"' in password or not password.isprintable():
        raise AnsibleFilterError('BIRD has no way to write a password with " or with control characters')
    return f'"{password}"'


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {"bird_symbol": bird_symbol, "bird_password": bird_password}
