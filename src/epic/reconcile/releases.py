# SPDX-License-Identifier: Apache-2.0
"""The public addresses of gateways that are gone, in the store: from the release until somebody has them."""

from __future__ import annotations

from epic.model.base import Metadata, now
from epic.model.releases import ReleasedAddress, ReleaseSpec
from epic.model.resources import GWProxy
from epic.model.values.addresses import Address
from epic.store.interface import Transaction


def release_addresses(transaction: Transaction, proxy: GWProxy) -> list[ReleasedAddress]:
    """Note who had the addresses of a gateway that is gone."""
    spec = ReleaseSpec(account=proxy.account, released=now())
    for address in proxy.addresses:
        take_address(transaction, address)
    return [
        transaction.create(ReleasedAddress(metadata=Metadata(name=str(address)), spec=spec))
        for address in proxy.addresses
    ]


def take_address(transaction: Transaction, address: Address) -> None:
    """Forget the release of the address: a gateway has it now."""
    if transaction.exists(ReleasedAddress, "", str(address)):
        transaction.delete(ReleasedAddress, "", str(address))


def disown_addresses(transaction: Transaction, account: str) -> None:
    """An account is deleted: another one of its name has no better right to what it had than others."""
    for released in transaction.list(ReleasedAddress):
        if released.spec.account == account:
            spec = released.spec.model_copy(update={"account": ""})
            transaction.update(released.model_copy(update={"spec": spec}))
