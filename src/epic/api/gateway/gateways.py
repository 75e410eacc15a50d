# SPDX-License-Identifier: Apache-2.0
"""Making, placing and removing gateways inside a transaction."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network
from typing import Self

from epic.api.account.account_limits import within_tunnel_limit
from epic.api.bodies import ProxySpecInput
from epic.api.context import Context
from epic.api.gateway.names import DNSNames, dns_endpoints
from epic.api.gateway.ports import ports_and_gateway
from epic.errors import Conflict, Invalid, NameTaken, NotFound, QuotaExceeded
from epic.ipam.prefixes import choose_addresses
from epic.ipam.releases import Asker
from epic.kinds.registry import GW_PROXY
from epic.kinds.validation import refuse_invalid
from epic.lifecycle.addresses import unusable_address
from epic.lifecycle.claims import Claims
from epic.lifecycle.conditions import with_instances, with_proxy_condition
from epic.model.base import Condition, Metadata, now
from epic.model.members import GWMember
from epic.model.resources import (
    Account,
    GWProxy,
    GWProxySpec,
    GWProxyStatus,
    LBServiceGroup,
    ServicePrefix,
)
from epic.model.values.naming import GATEWAY_ID_MAX
from epic.placement import place
from epic.reconcile.allocation import new_instances
from epic.reconcile.releases import take_address
from epic.reconcile.siblings import relist_gateway
from epic.reconcile.tunnels.tunnelling import replan
from epic.reconcile.world import World
from epic.store.interface import Reader, Transaction
from epic.store.queue import enqueue

_LABEL = "epic.acnodal.io/owning-"


@dataclass(frozen=True)
class GatewaySettings:
    """Where inside addresses are from; how long others' public addresses are none for a new gateway."""

    inside_pool: IPv4Network
    address_quarantine: timedelta

    @classmethod
    def of(cls, ctx: Context) -> Self:
        """Those of this API."""
        return cls(ctx.inside_pool, ctx.address_quarantine)


def create_gateway(
    transaction: Transaction,
    world: World,
    group: LBServiceGroup,
    spec: ProxySpecInput,
    settings: GatewaySettings,
    names: DNSNames,
) -> GWProxy:
    """A new gateway with addresses, name, instances and tunnels, and its run queued."""
    ports, gateway = ports_and_gateway(spec)
    _check_quota(transaction, group.account, world.count_gateways(group.account))
    proxy = GWProxy(
        metadata=Metadata(name=spec.client_ref.uid, namespace=group.account, labels=_labels(group)),
        spec=GWProxySpec(
            client_ref=spec.client_ref,
            display_name=spec.display_name or spec.client_ref.name or spec.client_ref.uid,
            public_ports=ports,
            gateway=gateway,
            group=group.name,
            service_prefix=group.spec.service_prefix,
        ),
    )
    refuse_invalid(GW_PROXY, proxy, "proxy")
    if len(str(proxy.id)) > GATEWAY_ID_MAX:
        most = GATEWAY_ID_MAX - len(group.account) - 1
        raise Invalid(
            f"proxy.spec.clientRef.uid: {proxy.name!r} has {len(proxy.name)} characters; "
            f"a gateway of account {group.account!r} may have {most}"
        )
    chosen = place(str(proxy.id), world.candidates(), group.spec.envoy_replica_count)
    prefix = transaction.get(ServicePrefix, "", group.spec.service_prefix)
    asker = Asker(group.account, now() - settings.address_quarantine)
    claims = world.claims
    addresses = choose_addresses(prefix, claims.public, claims.releases, gateway.addresses, asker)
    for address in addresses:
        take_address(transaction, address)
    chosen_addresses = dict(zip(("public_address", "alt_address"), addresses, strict=False))
    proxy = proxy.model_copy(update={"spec": proxy.spec.model_copy(update=chosen_addresses)})
    records = dns_endpoints(group, proxy, names)
    _check_name(transaction, proxy, records[0].dns_name, claims)
    status = GWProxyStatus(service=transaction.next_number("service"))
    spec_with_name = proxy.spec.model_copy(update={"endpoints": records})
    proxy = proxy.model_copy(update={"spec": spec_with_name, "status": status})
    unplaced = group.spec.envoy_replica_count - len(chosen)
    proxy = with_instances(proxy, new_instances(chosen, claims, settings.inside_pool), unplaced)
    with within_tunnel_limit(transaction, world, proxy.account):
        proxy = transaction.create(_queued(transaction, proxy, chosen))
        world.note(relist_gateway(transaction, proxy, world.nodes_to_list()))
        replan(transaction, world, proxy.account, {proxy.name})
    return world.proxies[proxy.id]


def change_gateway(transaction: Transaction, proxy: GWProxy, spec: ProxySpecInput) -> GWProxy:
    """The gateway with other listeners; its place, address and name stay."""
    ports, gateway = ports_and_gateway(spec)
    changed = {
        "display_name": spec.display_name or proxy.spec.display_name,
        "public_ports": ports,
        "gateway": gateway,
    }
    after = proxy.model_copy(update={"spec": proxy.spec.model_copy(update=changed)})
    refuse_invalid(GW_PROXY, after, "proxy")
    # An address that it cannot have must not keep the rest from being served: a condition says so.
    if unusable_address(proxy) or unusable_address(after):
        after = with_instances(after, after.status.instances)
    return transaction.update(after)


def delete_gateway(transaction: Transaction, proxy: GWProxy) -> None:
    """Let the gateway go; it stays until its nodes and runs have acknowledged each step of that.

    Its members go at once.
    """
    if not proxy.deleting:
        metadata = proxy.metadata.model_copy(update={"deletion_timestamp": now()})
        transaction.update(proxy.model_copy(update={"metadata": metadata}))
        for member in transaction.by(GWMember, "gateway", (proxy.account, proxy.name)):
            transaction.delete(GWMember, member.account, member.name)


def refuse_if_deleting(proxy: GWProxy) -> None:
    """Raise Conflict for a gateway that is on its way out."""
    if proxy.deleting:
        instances = proxy.status.instances
        counts = Counter(instance.phase for instance in instances)
        phases = ", ".join(f"{count} {phase}" for phase, count in counts.items())
        raise Conflict(
            f"gateway {proxy.name!r} is being deleted (instances: {phases or 'none any more'}); "
            "its name is free when it is gone",
            ", ".join(f"{i.node}: {i.phase}" for i in instances),
        )


def find_group(reader: Reader, account: str, name: str) -> LBServiceGroup:
    """The gateway template; raises NotFound with those that exist."""
    reader.get(Account, "", account)
    found = reader.find(LBServiceGroup, account, name)
    if found is None:
        names = ", ".join(group.name for group in reader.list(LBServiceGroup, account)) or "none"
        raise NotFound(f"account {account!r} has no gateway template {name!r}; it has: {names}")
    return found


def _check_quota(transaction: Transaction, account: str, count: int) -> None:
    limit = transaction.get(Account, "", account).spec.proxy_limit
    if count >= limit:
        raise QuotaExceeded(
            f"account {account!r} has {count} gateways and may have {limit}; delete one that is not needed, "
            "or ask the platform's administrators for a higher proxyLimit"
        )


def _check_name(transaction: Transaction, proxy: GWProxy, name: str, taken: Claims) -> None:
    if taken.accounts_with(name) - {proxy.account}:
        raise Conflict(f"the DNS name {name!r} is taken by another account; choose another display-name")
    for other in transaction.by(GWProxy, "dns-name", name):
        # One that goes may be there for long, and the one that it is made anew as has another UID.
        if not other.deleting:
            ref = other.spec.client_ref
            raise NameTaken(
                f"the DNS name {name!r} is that of gateway {other.name!r} ({other.spec.display_name!r} of "
                f"namespace {ref.namespace!r}); choose another display-name"
            )


def _queued(transaction: Transaction, proxy: GWProxy, nodes: list[str]) -> GWProxy:
    runs = enqueue(transaction, nodes)
    names = ", ".join(run.name for run in runs)
    message = f"run {names} is queued" if len(runs) == 1 else f"runs {names} are queued"
    return with_proxy_condition(
        proxy, Condition(type="Programmed", status="Unknown", reason="Pending", message=message)
    )


def _labels(group: LBServiceGroup) -> dict[str, str]:
    return {
        f"{_LABEL}account": group.account,
        f"{_LABEL}lbservicegroup": group.name,
        f"{_LABEL}serviceprefix": group.spec.service_prefix,
    }
