# Copyright: the EPIC developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for lists of IP networks."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleFilterError

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network


def _network(text: object) -> IPv4Network | IPv6Network:
    try:
        return ip_network(str(text))
    except ValueError as error:
        raise AnsibleFilterError(f"{text!r} is no address and no network: {error}") from error


def of_family(networks: list[str], version: int) -> list[str]:
    """Those of the networks that are of the IP version (4 or 6), each once, in their order."""
    parsed = dict.fromkeys(_network(text) for text in networks)
    return [str(network) for network in parsed if network.version == version]


def has_address(networks: list[str], address: str) -> bool:
    """Whether one of the networks has the address. An IPv4 address in IPv6's clothes counts as what it is."""
    try:
        sought = ip_address(address.partition("%")[0])
    except ValueError as error:
        raise AnsibleFilterError(f"{address!r} is no address") from error
    sought = getattr(sought, "ipv4_mapped", None) or sought
    return any(sought in _network(text) for text in networks)


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {"of_family": of_family, "has_address": has_address}
