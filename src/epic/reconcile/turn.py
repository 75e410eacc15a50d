# SPDX-License-Identifier: Apache-2.0
"""One transaction of the lives of gateways, nodes and deleted tunnels."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import TypeVar

from epic.errors import Exhausted
from epic.heartbeats import Heartbeats
from epic.lifecycle import nodes as node_life
from epic.lifecycle.conditions import with_instances
from epic.lifecycle.goals import Wanted
from epic.lifecycle.sequencer import Step, advance, some_version
from epic.lifecycle.tunnels import QUARANTINE, Evidence, is_released
from epic.model.base import Metadata, Resource, now
from epic.model.instances import ProxyInstance
from epic.model.nodes import Quarantine, QuarantineSpec
from epic.model.resources import GWProxy, LBServiceGroup, Node, Tunnel
from epic.model.values.naming import GatewayId
from epic.reconcile.allocation import new_instances
from epic.reconcile.releases import release_addresses
from epic.reconcile.revocation import revoke
from epic.reconcile.siblings import delete_siblings, forget_node, release_node, relist_gateway
from epic.reconcile.tunnels.tunnelling import Budget, work_off
from epic.reconcile.world import Key, Lives, World
from epic.store.interface import R, Transaction
from epic.store.queue import enqueue

log = logging.getLogger(__name__)

K = TypeVar("K")

TunnelEvidence = Callable[[Tunnel], Evidence]

_RELEASES = 4
"""The share of a turn that tunnels to be forgotten get, and more only when no others are to be made: one in
so many."""


@dataclass(frozen=True)
class LifecycleSettings:
    """What instances are to be; `drain_seconds` is what connections get before an instance leaves."""

    inside_pool: IPv4Network
    envoy_version: str
    drain_seconds: int = 30


def next_step(world: Lives, proxy: GWProxy, settings: LifecycleSettings) -> Step:
    """What is to be done for a gateway now."""
    group = world.groups.get((proxy.account, proxy.spec.group))
    version = (group.spec.envoy_version if group else None) or settings.envoy_version
    keeps_versions = world.unreadable.has(LBServiceGroup, proxy.account, proxy.spec.group)
    wanted = Wanted(
        replicas=replicas(world, proxy),
        envoy_version=some_version(proxy.status.instances) if keeps_versions else version,
        drain_seconds=settings.drain_seconds,
        deleting=proxy.deleting,
        keeps_versions=keeps_versions,
    )
    return advance(str(proxy.id), proxy.status.instances, wanted, world.hosts(proxy), now())


def replicas(world: Lives, proxy: GWProxy) -> int:
    """How many instances the gateway is to have."""
    group = world.groups.get((proxy.account, proxy.spec.group))
    return group.spec.envoy_replica_count if group else len(proxy.status.instances)


def is_work(proxy: GWProxy, step: Step) -> bool:
    """Whether the step is anything but standing still."""
    if step.place or step.runs or step.lost or step.instances != proxy.status.instances:
        return True
    return step.unplaced != proxy.status.unplaced or (proxy.deleting and not step.instances)


def may_have_more(world: Lives, node: str) -> bool:
    """Whether a gateway that cannot be read may have an instance on the node, as far as can be seen."""
    for account, name, value in world.unreadable.all(GWProxy):
        named = {other for other in world.nodes if f'"{other}"'.encode() in value}
        named.update(tunnel.spec.epic_node for tunnel in world.tunnels.of(GatewayId(account, name)))
        if not named or node in named:
            return True
    return False


class Turn:
    """The work of some keys in one transaction; `world` is what the transaction sees.

    `finish` is to follow the last key: an account's tunnels are planned once for all of its gateways. Keys of
    which more is left than one transaction may write are in `again` then. Each account has its share of that;
    `number` counts turns, so that it is not the same one each time that comes first.
    """

    def __init__(
        self,
        transaction: Transaction,
        world: World,
        settings: LifecycleSettings,
        evidence: TunnelEvidence,
        heartbeats: Heartbeats,
        number: int = 0,
    ) -> None:
        self._transaction = transaction
        self._world = world
        self._settings = settings
        self._evidence = evidence
        self._heartbeats = heartbeats
        self._number = number
        self._unplanned: dict[str, set[str]] = defaultdict(set)
        self._after: dict[str, str] = {}
        self._releasing: list[Key] = []
        self._gone: list[GatewayId] = []
        self._budget = Budget()
        self._kept = -(-self._budget.left // _RELEASES)
        self._budget.left -= self._kept
        self.again: set[Key] = set()

    def do(self, key: Key) -> None:
        """Do what is to be done for the key now."""
        match key.kind:
            case "gateway":
                proxy = self._world.proxies.get(GatewayId(key.account, key.name))
                if proxy is not None:
                    self._gateway(proxy)
            case "node":
                node = self._world.nodes.get(key.name)
                if node is not None:
                    self._node(node)
            case "plan":
                self._unplanned[key.account] |= set()
                self._go_on(key)
            case "tunnels":
                self._releasing.append(key)
            case "quarantine" | "release":
                until = self._world.held_until(key)
                if until is not None and until <= now():
                    held = self._world.releases if key.kind == "release" else self._world.quarantines
                    self._delete(held[key.name])

    def finish(self) -> None:
        """Plan the tunnels of the gateways that were changed, and delete those of which nothing is left."""
        if not self._releasing:
            self._budget.left, self._kept = self._budget.left + self._kept, 0
        for account, budget in self._shares(list(self._unplanned), self._budget):
            names, after = self._unplanned[account], self._after.get(account, "")
            rest = work_off(self._transaction, self._world, account, names, budget, after)
            if rest is not None:
                self.again.add(Key("plan", account, rest))
        for key, budget in self._shares(self._releasing, Budget(self._kept + self._budget.left)):
            self._release(key, budget)
        for gateway in self._gone:
            if gateway.proxy in self._world.backlog(gateway.account):
                continue  # Another one of its name must not find its tunnels.
            delete_siblings(self._transaction, gateway)
            proxy = self._world.proxies[gateway]
            self._delete(proxy)
            for released in release_addresses(self._transaction, proxy):
                self._world.note(released)
            log.info("gateway %s is gone", gateway)

    def _go_on(self, key: Key) -> None:
        """Go on in the middle before all is begun anew: else news without end keep the last ones waiting."""
        other = self._after.get(key.account, key.name)
        if other != key.name:
            self.again.add(Key("plan", key.account, ""))
        self._after[key.account] = max(key.name, other)

    def _gateway(self, proxy: GWProxy) -> None:
        step = next_step(self._world, proxy, self._settings)
        if not is_work(proxy, step):
            return
        for instance in step.lost:
            self._quarantine(proxy, instance)
        # First: nobody must take what the node said before for an answer.
        for name in sorted(step.dropped):
            self._count_removal(name)
        new, shortage = self._new(step)
        # Without addresses for a new instance there is nothing for a run to do on its node.
        runs = step.runs - (set(step.place) - {instance.node for instance in new})
        if runs:
            self._budget.take(len(enqueue(self._transaction, runs)))
        instances = step.instances + new
        before = _published(proxy.status.instances)
        unplaced = step.unplaced + len(step.place) - len(new)
        if unplaced > proxy.status.unplaced:
            log.warning("gateway %s: no room for %d instances%s", proxy.id, unplaced, shortage)
        proxy = self._save(with_instances(proxy, instances, unplaced))
        proxy = self._world.note(relist_gateway(self._transaction, proxy, self._world.nodes_to_list()))
        self._budget.take(1)
        if _published(instances) != before:
            self._unplanned[proxy.account].add(proxy.name)
        if proxy.deleting and not instances:
            self._gone.append(proxy.id)

    def _new(self, step: Step) -> tuple[tuple[ProxyInstance, ...], str]:
        """The instances that are added; without addresses for them the rest of the step is done.

        What addresses are short of is told besides, for operators.
        """
        if not step.place:
            return (), ""
        try:
            return new_instances(step.place, self._world.claims, self._settings.inside_pool), ""
        except Exhausted as error:
            return (), f": {error.whole}"

    def _quarantine(self, proxy: GWProxy, instance: ProxyInstance) -> None:
        spec = QuarantineSpec(
            gateway=str(proxy.id),
            node=instance.node,
            inside_address=instance.inside_address,
            public_address=proxy.spec.public_address,
            alt_address=proxy.spec.alt_address,
            dns_names=tuple(endpoint.dns_name for endpoint in proxy.spec.endpoints),
            until=now() + QUARANTINE,
        )
        name = str(self._transaction.next_number("quarantine"))
        self._world.note(self._transaction.create(Quarantine(metadata=Metadata(name=name), spec=spec)))

    def _count_removal(self, name: str) -> None:
        node = self._world.nodes[name]
        status = node.status.model_copy(update={"removals": node.status.removals + 1})
        self._save(node.model_copy(update={"status": status}))

    def _node(self, node: Node) -> None:
        placed = self._world.placed(node.name)
        if not node_life.is_gone(node, placed):
            more = may_have_more(self._world, node.name)
            heard = self._heartbeats.of(node.name)
            self._save(node_life.settled(node, placed, now(), heard, may_have_more=more))
            return
        if node_life.is_planned(node):
            release_node(self._transaction, node.name)
        self._delete(node)
        forget_node(self._transaction, node.name)
        if not node.status.lost:
            revoke(self._transaction, node.name)
        log.info("node %s is gone", node.name)

    def _shares(self, all_: Sequence[K], budget: Budget) -> Iterator[tuple[K, Budget]]:
        """Each with its share of the budget, in turn."""
        first = self._number % max(1, len(all_))
        for index, one in enumerate([*all_[first:], *all_[:first]]):
            with budget.share(len(all_) - index) as part:
                yield one, part

    def _release(self, key: Key, budget: Budget) -> None:
        time = now()
        for tunnel in self._world.tunnels.going(key.account):
            if is_released(tunnel, self._evidence(tunnel), time):
                if not budget.take(1):
                    self.again.add(key)
                    return
                self._delete(tunnel)

    def _save(self, obj: R) -> R:
        self._budget.take(1)
        return self._world.note(self._transaction.update(obj))

    def _delete(self, obj: Resource) -> None:
        self._transaction.delete(type(obj), obj.account, obj.name)
        self._world.drop(obj)


def _published(instances: tuple[ProxyInstance, ...]) -> set[tuple[str, str]]:
    return {(i.node, str(i.inside_address)) for i in instances if i.published}
