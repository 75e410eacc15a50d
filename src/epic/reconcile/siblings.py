# SPDX-License-Identifier: Apache-2.0
"""Keeps the stored siblings of gateways at their instances, in the transaction that changes these."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence

from epic.ads.snapshot import versioned
from epic.lifecycle.conditions import with_proxy_condition
from epic.model.base import Metadata, now
from epic.model.instances import ProxyInstance
from epic.model.resources import GWProxy, Node
from epic.model.siblings import Siblings, SiblingsSpec
from epic.model.values.naming import GatewayId
from epic.rotation import KEY_BYTES
from epic.siblings.condition import second_chance
from epic.siblings.listing import Nodes, begin, living, noted, relist, stands
from epic.siblings.message import message
from epic.siblings.waiting import HELD
from epic.store.interface import Reader, Transaction


def new_secret() -> str:
    """A new key, as it is stored."""
    return secrets.token_hex(KEY_BYTES)


def relisted(proxy: GWProxy, spec: SiblingsSpec | None, nodes: Nodes) -> SiblingsSpec | None:
    """The list that the gateway is to have; None: none of its nodes passes packets on, or ever did.

    `nodes` are at least those of its instances, its siblings and its former siblings that exist.
    """
    here = living(proxy.status.instances, nodes, spec.siblings if spec is not None else ())
    time = now()
    if not proxy.addresses or (spec is None and not here):
        return spec
    before = spec if spec is not None else begin(proxy.addresses, time, new_secret())
    standing = [name for name, node in nodes.items() if stands(node)]
    return stamped(proxy.id, relist(before, here, standing, time, new_secret()))


def stamped(gateway: GatewayId, spec: SiblingsSpec) -> SiblingsSpec:
    """The list with the version that it has on the ADS stream."""
    return noted(spec, versioned(message(gateway, spec)).version)


def held(
    instances: Sequence[ProxyInstance], before: SiblingsSpec | None, after: SiblingsSpec | None
) -> tuple[ProxyInstance, ...]:
    """The instances, held those that have just come into the list; who left it, or is alone in it, is not."""
    old, new = (spec.staying if spec is not None else () for spec in (before, after))
    return tuple(_with_hold(instance, old, new) for instance in instances)


def listed(
    instances: Sequence[ProxyInstance],
    spec: SiblingsSpec | None,
    awaited: Mapping[str, tuple[str, ...]] | None = None,
) -> tuple[ProxyInstance, ...]:
    """The instances, and of each whether it is in the list.

    `awaited` are the nodes for which those of a node wait that leaves; without it they are as they were.
    """
    nodes = spec.nodes if spec is not None else ()
    return tuple(_with_place(i, i.node in nodes, awaited) for i in instances)


def relist_gateway(transaction: Transaction, proxy: GWProxy, nodes: Nodes) -> GWProxy:
    """Bring the gateway's list, and who is held, to its instances; returns the gateway as it is then."""
    stored = transaction.find(Siblings, proxy.account, proxy.name)
    before = stored.spec if stored is not None else None
    after = relisted(proxy, before, nodes)
    save_siblings(transaction, proxy.id, stored, after)
    instances = listed(held(proxy.status.instances, before, after), after)
    status = proxy.status.model_copy(update={"instances": instances})
    proxy = proxy.model_copy(update={"status": status})
    if any(instance.hold for instance in instances):
        # The rest of what there is to say of it depends on what nodes say.
        proxy = with_proxy_condition(proxy, second_chance(instances, after, nodes, {}, now()))
    return transaction.update(proxy)


def save_siblings(
    transaction: Transaction, gateway: GatewayId, stored: Siblings | None, spec: SiblingsSpec | None
) -> None:
    """Write the list down, if it has changed."""
    if spec is None or (stored is not None and spec == stored.spec):
        return
    if stored is None:
        metadata = Metadata(name=gateway.proxy, namespace=gateway.account)
        transaction.create(Siblings(metadata=metadata, spec=spec))
    else:
        transaction.update(stored.model_copy(update={"spec": spec}))


def delete_siblings(transaction: Transaction, gateway: GatewayId) -> None:
    """The gateway is gone."""
    if transaction.exists(Siblings, gateway.account, gateway.proxy):
        transaction.delete(Siblings, gateway.account, gateway.proxy)


def forget_node(transaction: Transaction, node: str) -> None:
    """A node is lost or gone: take it out of all lists, and replace all keys that it may know."""
    nodes: dict[str, Node | None] = {found.name: found for found in transaction.list(Node)}
    nodes |= dict.fromkeys(found.key.name for found in transaction.unreadable(Node))
    for stored in transaction.list(Siblings):
        if node in {*stored.spec.nodes, *(former.node for former in stored.spec.former)}:
            proxy = transaction.find_readable(GWProxy, stored.account, stored.name)
            if proxy is not None:
                save_siblings(transaction, proxy.id, stored, relisted(proxy, stored.spec, nodes))


def release_node(transaction: Transaction, node: str) -> None:
    """A node was removed as planned: the keys that it knew go with the next rotation, as one's that left."""
    for stored in transaction.list(Siblings):
        former = tuple(
            f.model_copy(update={"dismissed": True}) if f.node == node else f for f in stored.spec.former
        )
        if former != stored.spec.former:
            spec = stored.spec.model_copy(update={"former": former})
            transaction.update(stored.model_copy(update={"spec": spec}))


def nodes_of(reader: Reader, proxy: GWProxy, spec: SiblingsSpec | None) -> dict[str, Node | None]:
    """The nodes of the gateway's instances, of its siblings and former siblings, as far as they exist."""
    names = {instance.node for instance in proxy.status.instances}
    if spec is not None:
        names.update(spec.nodes, (former.node for former in spec.former))
    return {
        name: reader.find_readable(Node, "", name) for name in sorted(names) if reader.exists(Node, "", name)
    }


def _with_place(
    instance: ProxyInstance, listed: bool, awaited: Mapping[str, tuple[str, ...]] | None
) -> ProxyInstance:
    known = instance.awaits if awaited is None else awaited.get(instance.node, ())
    awaits = known if listed and not instance.lives else ()
    if (instance.listed, instance.awaits) == (listed, awaits):
        return instance
    return instance.model_copy(update={"listed": listed, "awaits": awaits})


def _with_hold(instance: ProxyInstance, old: Collection[str], new: Collection[str]) -> ProxyInstance:
    # A drain that is taken back is no reason to announce it before its siblings know it.
    may_wait = instance.node in new and len(new) > 1 and not instance.announced
    hold = (instance.hold or (HELD if instance.node not in old else "")) if may_wait else ""
    return instance if hold == instance.hold else instance.model_copy(update={"hold": hold})
