# SPDX-License-Identifier: Apache-2.0
"""What an object that cannot be read may hold, by its bytes: more rather than less. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from epic.model.values.addresses import Address

# Everything in quotes that looks so, whatever the field: another version may call it otherwise.
# It has no two ways to take the same bytes: what is stored is its owner's choice, and may be long.
_ADDRESS = re.compile(rb'"([0-9A-Fa-f]{0,4}[.:][0-9A-Fa-f.:]{1,43})"')
_DNS_NAME = re.compile(rb'"((?:[A-Za-z0-9_-]{1,63}\.)+[A-Za-z0-9-]{1,63})"')


@dataclass(frozen=True)
class Salvaged:
    """Addresses and DNS names that are in an object."""

    addresses: frozenset[Address]
    dns_names: frozenset[str]


def salvage(value: bytes) -> Salvaged:
    """What is found in the stored bytes of an object, whole or not."""
    addresses = {found for text in _ADDRESS.findall(value) if (found := _address(text.decode())) is not None}
    names = {text.decode().lower() for text in _DNS_NAME.findall(value)}
    return Salvaged(frozenset(addresses), frozenset(names))


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
