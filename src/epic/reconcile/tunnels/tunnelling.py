# SPDX-License-Identifier: Apache-2.0
"""Brings the stored tunnels of gateways to their plan: a bounded number in a transaction, the rest later.

What is left is in the account's backlog, in the store: whoever made it, and whatever ends in between, the
reconciler of lives goes on with it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import SecretStr

from epic.lifecycle.conditions import has_tunnels_pending
from epic.model.backlog import TunnelBacklog, TunnelBacklogSpec
from epic.model.base import Metadata, now
from epic.model.resources import Tunnel, TunnelSpec
from epic.model.values.keys import EpochKey
from epic.model.values.naming import GatewayId
from epic.reconcile.tunnels.tunnel_plans import GatewayPlan, Planner, is_pending, with_tunnels_later
from epic.reconcile.world import World
from epic.store.interface import Transaction
from epic.tunnels import WantedTunnel, key_of

log = logging.getLogger(__name__)


@dataclass
class Budget:
    """How many tunnels and gateways a transaction may still write: all others who write wait for that long.

    `announcements` are gateways of which it may say that their tunnels come later, `plans` gateways that may
    be looked at.
    """

    left: int = 80
    announcements: int = 20
    plans: int = 40

    def take(self, count: int) -> int:
        """As much of `count` as is left."""
        taken = min(count, self.left)
        self.left -= taken
        return taken

    def begin(self) -> bool:
        """Whether one more gateway may be looked at; it counts."""
        self.plans -= 1
        return self.plans >= 0

    @contextmanager
    def share(self, among: int) -> Iterator[Budget]:
        """What one of so many may use; what it leaves is the others'."""
        whole = (self.left, self.announcements, self.plans)
        given = [-(-max(0, left) // among) for left in whole]
        part = Budget(*given)
        yield part
        self.left -= given[0] - part.left
        self.announcements -= given[1] - part.announcements
        self.plans -= given[2] - part.plans


def replan(transaction: Transaction, world: World, account: str, names: Iterable[str]) -> None:
    """Make, change and delete the tunnels of these gateways; where that are many, the reconciler does it.

    No more tunnels are made than the account may have and nodes have room for: a condition of the gateway
    says what it is without, and it gets what becomes free. An instance has its tunnels until its node is told
    to drop it.
    """
    budget = Budget()
    if world.backlog(account):
        remember(transaction, world, account, names, budget)
    else:
        # Whom of those that wait it did not come to the reconciler looks at when it is time.
        work_off(transaction, world, account, names, budget)


def work_off(
    transaction: Transaction,
    world: World,
    account: str,
    names: Iterable[str],
    budget: Budget,
    after: str = "",
) -> str | None:
    """Do what is left for the gateways of the account's backlog, then for these, then for who waits for room.

    Of those that wait, the ones that come after that name are looked at. Returns after which of them to go
    on, since the budget was not enough; None: it was.
    """
    fresh = _known(world, account, names)
    order = _in_turn(world, account, fresh)
    waiting = sorted(name for name in world.waiting(account).difference(order) if name > after)
    planner = Planner(transaction, world, account)
    for index, name in enumerate(order):
        rest = order[index + 1 :]
        if not budget.left or not budget.begin():
            _save_backlog(transaction, world, account, [name, *rest], budget, fresh)
            return after
        if not _carry_out(transaction, world, planner.plan(name), budget):
            # Another one comes first next time: one that changes without end must not hold up the others.
            _save_backlog(transaction, world, account, [*rest, name], budget, fresh)
            return after
    _save_backlog(transaction, world, account, [], budget)
    for name in waiting:
        # Whose instances wait for tunnels is told when they are to wait no longer.
        if planner.is_full and not is_pending(world.proxies[GatewayId(account, name)]):
            continue
        if not budget.left or not budget.begin():
            return after
        plan = planner.plan(name)
        # Of those that wait for room none is forgotten that there is something to do for. Who goes on waiting
        # need not be told.
        if not _carry_out(transaction, world, plan, budget) and not plan.change.is_empty:
            _save_backlog(transaction, world, account, [name], budget)
            return after
        after = name
    return None


def remember(
    transaction: Transaction, world: World, account: str, names: Iterable[str], budget: Budget
) -> None:
    """Leave the gateways to the reconciler."""
    fresh = _known(world, account, names)
    _save_backlog(transaction, world, account, _in_turn(world, account, fresh), budget, fresh)


def _known(world: World, account: str, names: Iterable[str]) -> set[str]:
    """Those that are gateways, or that have tunnels still: routes may name anything."""
    gateways = (GatewayId(account, name) for name in names)
    return {g.proxy for g in gateways if g in world.proxies or world.tunnels.living(g)}


def _in_turn(world: World, account: str, names: Collection[str]) -> list[str]:
    backlog = world.backlog(account)
    return [*backlog, *sorted(set(names).difference(backlog))]


def _carry_out(transaction: Transaction, world: World, plan: GatewayPlan, budget: Budget) -> bool:
    """Change tunnels as far as the budget goes; if it is enough for all, let the gateway show that."""
    gateway, change = plan.gateway, plan.change
    _let_go(transaction, world, plan, budget)
    # What serves nobody any more may stay for long; but no two tunnels connect the same.
    connected = {wanted.key for wanted in change.create}
    replaced = [tunnel for tunnel in change.delete if key_of(tunnel) in connected]
    _delete(transaction, world, replaced, budget)
    for wanted in change.create[: budget.take(len(change.create))]:
        number = transaction.next_number("tunnel")
        service = world.proxies[gateway].status.service
        world.note(transaction.create(_new_tunnel(number, gateway.account, service, wanted)))
    for tunnel in change.update[: budget.take(len(change.update))]:
        world.note(transaction.update(tunnel))
    _delete(transaction, world, [t for t in change.delete if key_of(t) not in connected], budget)
    proxy = world.proxies.get(gateway)
    if proxy is None:
        return budget.left > 0
    if not budget.left:
        return False
    after = plan.shown(world, proxy)
    if after != proxy:
        budget.take(1)
        world.note(transaction.update(after))
        if after.status.crowded_out > proxy.status.crowded_out:
            nodes = ", ".join(sorted(instance.node for instance in after.status.instances))
            log.warning("gateway %s: no room for %d tunnels on %s", gateway, after.status.crowded_out, nodes)
    return True


def _let_go(transaction: Transaction, world: World, plan: GatewayPlan, budget: Budget) -> None:
    """Hold instances no longer than need be where it takes more than the budget until all is done."""
    change, proxy = plan.change, world.proxies.get(plan.gateway)
    if proxy is None or len(change.create) + len(change.update) + len(change.delete) < budget.left:
        return
    after = plan.with_let_go(world, proxy)
    if after != proxy:
        budget.take(1)
        world.note(transaction.update(after))


def _delete(transaction: Transaction, world: World, tunnels: Sequence[Tunnel], budget: Budget) -> None:
    for tunnel in tunnels[: budget.take(len(tunnels))]:
        metadata = tunnel.metadata.model_copy(update={"deletion_timestamp": now()})
        # It stays until both ends have let go of it.
        world.note(transaction.update(tunnel.model_copy(update={"metadata": metadata})))


def _save_backlog(
    transaction: Transaction,
    world: World,
    account: str,
    names: Sequence[str],
    budget: Budget,
    fresh: Collection[str] = (),
) -> None:
    """Write down what is left, and tell of it: first those that are `fresh` in it."""
    for name in sorted(names, key=lambda name: name not in fresh):
        proxy = world.proxies.get(GatewayId(account, name))
        if proxy is None or (name not in fresh and has_tunnels_pending(proxy)):
            continue
        pending = with_tunnels_later(world, proxy)
        if pending != proxy:
            if not budget.announcements:
                break
            budget.announcements -= 1
            world.note(transaction.update(pending))
    stored = transaction.find_readable(TunnelBacklog, account, account)
    if stored is None and transaction.exists(TunnelBacklog, account, account):
        # Whose tunnels were still to be made is not known: all are looked at.
        transaction.delete(TunnelBacklog, account, account)
        names = sorted({*names, *world.names(account)})
    elif tuple(names) == world.backlog(account):
        return
    spec = TunnelBacklogSpec(gateways=tuple(names))
    if stored is None and not names:
        return
    if stored is None:
        metadata = Metadata(name=account, namespace=account)
        world.note(transaction.create(TunnelBacklog(metadata=metadata, spec=spec)))
    elif names:
        world.note(transaction.update(stored.model_copy(update={"spec": spec})))
    else:
        transaction.delete(TunnelBacklog, account, account)
        world.drop(stored)


def _new_tunnel(number: int, account: str, service: int, wanted: WantedTunnel) -> Tunnel:
    return Tunnel(
        metadata=Metadata(name=str(number), namespace=account),
        spec=TunnelSpec(
            proxy=wanted.key.proxy,
            service=service,
            epic_node=wanted.key.epic_node,
            inside_address=wanted.inside_address,
            cluster_id=wanted.key.workload.cluster_id,
            node_name=wanted.key.workload.name,
            node_address=wanted.node_address,
            keys=(EpochKey(epoch=1, secret=SecretStr(secrets.token_hex(16))),),
            signing_epoch=1,
            signing_since=now(),
        ),
    )
