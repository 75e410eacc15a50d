"""Making, placing and removing gateways inside a transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from epic.api.bodies import ProxySpecInput
from epic.api.names import dns_endpoint
from epic.api.ports import ports_and_gateway
from epic.api.tunnelling import delete_tunnels, replan
from epic.errors import Exhausted, Invalid, NotFound, QuotaExceeded
from epic.ipam import first_free, inside_range, public_range
from epic.model.base import Condition, Metadata, with_condition
from epic.model.instances import ProxyInstance
from epic.model.naming import GATEWAY_ID_MAX
from epic.model.resources import (
    Account,
    GWProxy,
    GWProxySpec,
    GWProxyStatus,
    LBServiceGroup,
    Node,
    ServicePrefix,
)
from epic.placement import Candidate, place
from epic.store.interface import Reader, Transaction
from epic.store.queue import enqueue

_LABEL = "epic.acnodal.io/owning-"


def create_gateway(
    transaction: Transaction, group: LBServiceGroup, spec: ProxySpecInput, inside_pool: IPv4Network
) -> GWProxy:
    """A new gateway with address, name, instances and tunnels, and its run queued."""
    ports, gateway = ports_and_gateway(spec)
    everything = transaction.list(GWProxy)
    _check_quota(transaction, group.account, everything)
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
    if len(str(proxy.id)) > GATEWAY_ID_MAX:
        most = GATEWAY_ID_MAX - len(group.account) - 1
        raise Invalid(
            f"proxy.spec.clientRef.uid: {proxy.name!r} has {len(proxy.name)} characters; "
            f"a gateway of account {group.account!r} may have {most}"
        )
    chosen = place(str(proxy.id), _candidates(transaction, everything), group.spec.envoy_replica_count)
    with_address = {"public_address": _public_address(transaction, group, everything)}
    proxy = proxy.model_copy(update={"spec": proxy.spec.model_copy(update=with_address)})
    with_name = {"endpoints": (dns_endpoint(group, proxy),)}
    status = GWProxyStatus(
        service=transaction.next_number("service"),
        instances=_instances(chosen, (), everything, inside_pool),
    )
    proxy = proxy.model_copy(update={"spec": proxy.spec.model_copy(update=with_name), "status": status})
    proxy = transaction.create(_queued(transaction, proxy, chosen))
    replan(transaction, proxy.account, {proxy.name})
    return transaction.get(GWProxy, proxy.account, proxy.name)


def change_gateway(transaction: Transaction, proxy: GWProxy, spec: ProxySpecInput) -> GWProxy:
    """The gateway with other listeners; its place, address and name stay."""
    ports, gateway = ports_and_gateway(spec)
    changed = {
        "display_name": spec.display_name or proxy.spec.display_name,
        "public_ports": ports,
        "gateway": gateway,
    }
    return transaction.update(proxy.model_copy(update={"spec": proxy.spec.model_copy(update=changed)}))


def delete_gateway(transaction: Transaction, proxy: GWProxy) -> None:
    """Remove the gateway with its tunnels; the run that removes its instances is queued."""
    delete_tunnels(transaction, proxy.account, proxy.name)
    transaction.delete(GWProxy, proxy.account, proxy.name)
    known = {node.name for node in transaction.list(Node)}
    nodes = {instance.node for instance in proxy.status.instances} & known
    if nodes:
        enqueue(transaction, nodes)


def rebalance(transaction: Transaction, inside_pool: IPv4Network) -> None:
    """Give gateways that lost a node, or never had enough, their full number of instances."""
    nodes = {node.name for node in transaction.list(Node)}
    for proxy in transaction.list(GWProxy):
        everything = transaction.list(GWProxy)
        standing = [i for i in proxy.status.instances if i.node in nodes]
        wanted = _replicas(transaction, proxy)
        if len(standing) == len(proxy.status.instances) and len(standing) >= wanted:
            continue
        try:
            candidates = _candidates(transaction, everything)
            chosen = place(str(proxy.id), candidates, wanted, keep=[i.node for i in standing])
        except Exhausted:
            chosen = []
        instances = _instances(chosen, standing, everything, inside_pool)
        if instances == proxy.status.instances:
            continue
        status = proxy.status.model_copy(update={"instances": instances})
        moved = proxy.model_copy(update={"status": status})
        transaction.update(_queued(transaction, moved, chosen) if chosen else moved)
        replan(transaction, proxy.account, {proxy.name})


def find_group(reader: Reader, account: str, name: str) -> LBServiceGroup:
    """The gateway template; raises NotFound with those that exist."""
    reader.get(Account, "", account)
    groups = {group.name: group for group in reader.list(LBServiceGroup, account)}
    if name not in groups:
        raise NotFound(
            f"account {account!r} has no gateway template {name!r}; it has: {', '.join(groups) or 'none'}"
        )
    return groups[name]


def _check_quota(transaction: Transaction, account: str, everything: Iterable[GWProxy]) -> None:
    limit = transaction.get(Account, "", account).spec.proxy_limit
    count = sum(proxy.account == account for proxy in everything)
    if count >= limit:
        raise QuotaExceeded(
            f"account {account!r} has {count} gateways and may have {limit}; delete one that is not needed, "
            "or ask the platform's administrators for a higher proxyLimit"
        )


def _public_address(
    transaction: Transaction, group: LBServiceGroup, everything: Iterable[GWProxy]
) -> IPv4Address:
    name = group.spec.service_prefix
    prefix = transaction.get(ServicePrefix, "", name)
    used = [proxy.spec.public_address for proxy in everything if proxy.spec.public_address]
    return first_free(public_range(prefix.spec.public_pool), used, f"address pool {name!r}")[0]


def _instances(
    nodes: list[str], standing: Iterable[ProxyInstance], everything: Iterable[GWProxy], pool: IPv4Network
) -> tuple[ProxyInstance, ...]:
    have = {instance.node: instance for instance in standing}
    new = [node for node in nodes if node not in have]
    used = [instance.inside_address for proxy in everything for instance in proxy.status.instances]
    addresses = first_free(inside_range(pool), used, "the pool of inside addresses", len(new))
    have |= {
        node: ProxyInstance(node=node, inside_address=address)
        for node, address in zip(new, addresses, strict=True)
    }
    return tuple(have[node] for node in nodes)


def _candidates(transaction: Transaction, everything: Iterable[GWProxy]) -> list[Candidate]:
    load = Counter(instance.node for proxy in everything for instance in proxy.status.instances)
    return [
        Candidate(node.name, node.spec.capacity, load[node.name], node.spec.schedulable)
        for node in transaction.list(Node)
    ]


def _replicas(transaction: Transaction, proxy: GWProxy) -> int:
    groups = transaction.list(LBServiceGroup, proxy.account)
    found = [group.spec.envoy_replica_count for group in groups if group.name == proxy.spec.group]
    return found[0] if found else len(proxy.status.instances)


def _queued(transaction: Transaction, proxy: GWProxy, nodes: list[str]) -> GWProxy:
    run = enqueue(transaction, nodes)
    condition = Condition(
        type="Programmed", status="Unknown", reason="Pending", message=f"run {run.name} is queued"
    )
    status = proxy.status.model_copy(
        update={"conditions": with_condition(proxy.status.conditions, condition)}
    )
    return proxy.model_copy(update={"status": status})


def _labels(group: LBServiceGroup) -> dict[str, str]:
    return {
        f"{_LABEL}account": group.account,
        f"{_LABEL}lbservicegroup": group.name,
        f"{_LABEL}serviceprefix": group.spec.service_prefix,
    }
