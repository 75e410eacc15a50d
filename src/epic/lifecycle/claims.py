# SPDX-License-Identifier: Apache-2.0
"""Addresses and names that are not free, pure: what exists, goes, or may still be used by a lost node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from epic.ipam.book import AddressBook, Holdings
from epic.ipam.releases import Release, Releases
from epic.lifecycle.salvage import salvage
from epic.model.base import Resource
from epic.model.nodes import Quarantine
from epic.model.releases import ReleasedAddress
from epic.model.resources import GWProxy, Tunnel
from epic.model.values.addresses import Address, both
from epic.model.values.naming import GatewayId

_HOLDING = frozenset(kind.kind for kind in (GWProxy, Quarantine, ReleasedAddress, Tunnel))


@dataclass(frozen=True)
class _Claim:
    """What one object holds, and for which account."""

    account: str = ""
    public: Iterable[Address] = ()
    inside: Iterable[Address] = ()
    dns_names: Iterable[str] = ()


class Claims:
    """All that is taken, kept object by object: what an object held alone is free when it is gone."""

    def __init__(self) -> None:
        self.public = AddressBook()
        self.releases = Releases()
        """Public addresses that nobody has; to the book they are held, by their release."""
        self.inside = AddressBook()
        self._dns_names: Holdings[str] = Holdings()
        self._accounts: dict[object, str] = {}

    def apply(self, kind: str, account: str, name: str, obj: Resource | None) -> None:
        """Take in an object as it is now; None: it is gone."""
        holder = (kind, account, name)
        claim = _claim(obj)
        self.public.hold(holder, claim.public)
        self.inside.hold(holder, claim.inside)
        self._dns_names.hold(holder, claim.dns_names)
        if kind == ReleasedAddress.kind:
            self._apply_release(ip_address(name), obj)
        self._accounts.pop(holder, None)
        if claim.dns_names:
            self._accounts[holder] = claim.account

    def hold_unreadable(self, kind: str, account: str, name: str, value: bytes) -> None:
        """Let an object that is there and cannot be read hold all that may be its own, until it changes."""
        if kind not in _HOLDING:
            return
        holder = (kind, account, name)
        found = salvage(value)
        own = {ip_address(name)} if kind == ReleasedAddress.kind else set()
        self.public.hold(holder, found.addresses | own)
        self.inside.hold(holder, found.addresses)
        self._dns_names.hold(holder, found.dns_names)
        if found.dns_names:
            self._accounts[holder] = account

    def _apply_release(self, address: Address, obj: Resource | None) -> None:
        self.releases.forget(address)
        if isinstance(obj, ReleasedAddress):
            self.releases.note(address, Release(obj.spec.account, obj.spec.released))

    def accounts_with(self, dns_name: str) -> set[str]:
        """The accounts that have the DNS name."""
        return {self._accounts[holder] for holder in self._dns_names.holders(dns_name)}


def _claim(obj: Resource | None) -> _Claim:
    match obj:
        case GWProxy(spec=spec, status=status):
            return _Claim(
                account=obj.account,
                public=obj.addresses,
                inside=[instance.inside_address for instance in status.instances],
                dns_names=[endpoint.dns_name for endpoint in spec.endpoints],
            )
        case Quarantine(spec=held):
            return _Claim(
                account=GatewayId.parse(held.gateway).account,
                public=both(held.public_address, held.alt_address),
                inside=(held.inside_address,),
                dns_names=held.dns_names,
            )
        case ReleasedAddress():
            return _Claim(public=(ip_address(obj.name),))
        case Tunnel(spec=tunnel):
            return _Claim(inside=(tunnel.inside_address,))
        case _:
            return _Claim()
