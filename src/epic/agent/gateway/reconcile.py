# SPDX-License-Identifier: Apache-2.0
"""Brings the node to what the control plane asks for, again after each change."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from epic.ads.snapshot import INSTANCE, Snapshot
from epic.agent.gateway.announcement import Announcer, Newcomers
from epic.agent.gateway.chance.second_chance import SecondChance, moved, namespaces_of
from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.gateway.desired import Desired, Element, Instance, NodeState
from epic.agent.gateway.endpoint_changes import EndpointChanges
from epic.agent.gateway.envoy import readiness
from epic.agent.gateway.envoy.drain import Drainer, Order
from epic.agent.gateway.envoy.publisher import Publisher
from epic.agent.gateway.envoy.readiness import RELEASE_SECONDS
from epic.agent.gateway.envoy.registry import EnvoyRegistry
from epic.agent.gateway.envoy.xds import XdsSockets
from epic.agent.gateway.firewall import Firewall
from epic.agent.gateway.kernel import GatewayKernel, KernelState
from epic.agent.gateway.plans import plan
from epic.agent.gateway.plans.failures import Failures
from epic.agent.gateway.plans.parts import carry_out
from epic.agent.runtime.log_once import LogOnce
from epic.agent.runtime.resync import Resync
from epic.agent.runtime.worker import Worker
from epic.model.values.addresses import Address

log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.005
_RETRY_SECONDS = 1.0
# What goes by itself is gone soon.
_SOON_SECONDS, _TRIES = 0.2, 10
_RESYNC_SECONDS = 5.0


@dataclass(frozen=True)
class _View:
    """What a round looks at: only what may not be as it should."""

    wanted: Desired
    observed: plan.Observed
    parts: dict[str, Snapshot | None]
    """What Envoys are to be told, by gateway; those are added for which endpoints are made."""


class Envoys(NamedTuple):
    """What is known of this node's Envoys, and how they are spoken to."""

    registry: EnvoyRegistry
    sockets: XdsSockets
    drainer: Drainer


class Reconciler:
    """Owns the order: withdraw, add to the kernel, tell Envoys, take from the kernel, announce."""

    def __init__(
        self,
        cache: ResourceCache,
        kernel: GatewayKernel,
        worker: Worker,
        envoys: Envoys,
        routes: Announcer,
        firewall: Firewall,
        second_chance: SecondChance,
    ) -> None:
        self._cache = cache
        self._kernel = kernel
        self._worker = worker
        self._registry, sockets, self._drainer = envoys
        self._publisher = Publisher(cache, self._registry, sockets)
        self._endpoints = EndpointChanges(cache, self._registry, self._publisher.told)
        self._routes = routes
        self._firewall = firewall
        self._second_chance = second_chance
        self._instances: dict[str, Instance] = {}
        self._parted: dict[str, str] = {}
        self._state: NodeState | None = None
        self._tries = 0
        self.leaving: tuple[str, ...] = ()
        """Gateways that are not wanted any more, but something of them is on the node still."""
        self.applied = ""
        """The digest of what the control plane wanted last of all that was carried out, whole."""
        self.hold_new = False
        """Whether nothing may be announced that is not."""
        self._wake = asyncio.Event()
        self._whole = True
        self._resync = Resync(_RESYNC_SECONDS)
        self._synced = False
        self._timer: asyncio.TimerHandle | None = None
        self._newcomers = Newcomers()
        self._namespaces: Mapping[str, int] = {}
        self._forwards6 = True
        self._undelivered: frozenset[Address] = frozenset()
        self._programmed: set[str] = set()
        self._cut_off: set[str] = set()
        self._troubles = LogOnce(log)
        self._failures = Failures(log)

    def accept_resources(self) -> None:
        """What is held has changed, or is to be worked towards from now on.

        Before the first call nothing is removed: an agent that lost its state must not take down what works.
        """
        instances = self._cache.instances
        if self._cache.dirty.gateways or not self._synced:
            self._publisher.keep(instances.keys())
            self._note_parted(instances)
            orders = {g: Order(i.drain_seconds) for g, i in instances.items() if i.draining}
            self._drainer.set_orders(orders, instances)
            self._registry.keep(instances, () if self._synced else self._served_before())
        self._synced = True
        self._want_ports()
        if self._cache.node_state is not self._state:
            self._state = self._cache.node_state
            self._whole, self._tries = True, 0
        self._wake.set()

    def _note_parted(self, instances: Mapping[str, Instance]) -> None:
        gone = self._instances.keys() - instances.keys()
        self._parted |= {gateway: self._instances[gateway].interface for gateway in gone}
        for gateway in instances:
            self._parted.pop(gateway, None)
        self._instances = dict(instances)

    def _served_before(self) -> list[str]:
        """Gateways that an earlier agent announced: their address stands, and their interface is in use.

        That an address stands says nothing by itself: it may be what another gateway left.
        """
        standing, attached = self._routes.standing, self._kernel.found
        instances = self._cache.instances.items()
        return [g for g, i in instances if not standing.isdisjoint(i.publics) and i.interface in attached]

    def _want_ports(self) -> None:
        elements = (i.elements for i in self._cache.instances.values())
        self._firewall.want(frozenset().union(*elements), may_close=self._synced)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the node now, a line each."""
        return (*self._troubles.problems, *self._failures.problems, *self._endpoints.problems)

    @property
    def failures(self) -> Mapping[str, str]:
        """Why gateways do not have what they need on this node, by gateway."""
        nowhere = {gateway: plan.NOT_FORWARDED for gateway, found in self.addresses.items() if not found}
        return {**nowhere, **self._failures.by_gateway}

    @property
    def addresses(self) -> dict[str, tuple[Address, ...]]:
        """The public addresses that can be announced from here, by gateway."""
        instances, left_out = self._cache.instances.items(), self._undelivered
        return {gateway: plan.announceable(i, self._forwards6, left_out) for gateway, i in instances}

    @property
    def withheld(self) -> Mapping[str, str]:
        """Why gateways are to be announced at one of their two addresses only, by gateway."""
        unforwarded = plan.unforwarded(self._cache.instances, self._forwards6)
        return {**dict.fromkeys(unforwarded, plan.NOT_FORWARDED), **self._failures.of_second_family}

    def set_down(self, down: frozenset[int]) -> None:
        """These tunnels are down: Envoys are told that the endpoints behind them are unhealthy."""
        self._publisher.set_down(down)
        self._wake.set()

    def wake(self) -> None:
        """Something changed on the node: look at all of it, and try again what failed."""
        self._failures.try_again()
        self._timed()

    def look_at_interfaces(self) -> None:
        """Interfaces came, changed or went: look at what rests on them, and try again what failed."""
        self._failures.try_again()
        # What is to leave the node has left it when nothing of it is found.
        self._whole |= bool(self._parted)
        self._wake.set()

    async def run(self, done: Callable[[bool], None]) -> None:
        """Reconcile until cancelled; `done` is told after each round whether tunnels changed."""
        while True:
            try:
                async with asyncio.timeout(self._resync.left):
                    await self._wake.wait()
            except TimeoutError:
                pass
            # What the control plane sends at once arrives within this time.
            await asyncio.sleep(_GATHER_SECONDS)
            self._wake.clear()
            # Also where something small changes all the time.
            self._whole |= not self._resync.left
            try:
                done(await self.round())
            except Exception as error:
                # Whatever it is, it must not keep the rest of the agent from its work.
                self._troubles.report("node", f"the node cannot be looked at: {error!r}; trying again")
                log.debug("the node cannot be looked at", exc_info=error)
                self._whole = True
                self._again(_RETRY_SECONDS)
                done(False)
            else:
                self._troubles.report("node", "")

    def wake_if_waiting(self) -> None:
        """An Envoy has answered: endpoints that it let go of may now be removed."""
        if self._endpoints.waits:
            self._wake.set()

    async def announce(self) -> bool:
        """Make the flag routes right; True when one changed."""
        if not self._synced:
            return False
        instances, ports = self._cache.instances, self._firewall.open
        programmed = {
            g
            for g in self._programmed
            if g in instances
            and instances[g].elements <= ports
            and max(map(self._routes.lost_at, instances[g].publics)) <= self._registry.answered_at(g)
        }
        preconditions = readiness.Preconditions(
            programmed=set() if self.hold_new else programmed,
            cut_off=instances.keys() if self._firewall.broken else self._cut_off | self._drainer.withdrawn,
            leaving=self._drainer.draining | self._newcomers.held(instances, time.monotonic()),
        )
        return await self._routes.sync(self.addresses, self._registry.envoys, preconditions)

    async def round(self) -> bool:
        """Look at what may not be right and make it so; True when tunnels were set or deleted."""
        await self.announce()
        if self._kernel.idle:
            return False
        state = self._cache.node_state
        whole, self._whole = self._whole, False
        if whole:
            self._resync.begin()
            await self._routes.observe()
        kernel = await self._worker.run(self._kernel.observe, whole)
        self._forwards6 &= kernel.forwards6  # What is passed on anew is announced when delivered.
        self._troubles.report("forwarding", plan.say_unforwarded(self._cache.instances, kernel.forwards6))
        await self._worker.repeat(self._kernel.check_routes)
        passes_on = await self._sync_siblings(kernel, whole)
        await self._endpoints.refresh(self._worker, self._kernel)
        view = self._view(kernel)
        # A node that begins has a hundred thousand endpoints to make: others have their turn in between.
        await asyncio.sleep(0)
        self._failures.begin()
        actions = plan.additions(view.wanted, view.observed)
        failed = await self._apply(view, actions)
        self._forwards6, self._undelivered = kernel.forwards6, plan.undelivered(failed)
        if whole and self._synced and not failed:
            # Second chance was tried before: what failed of it must not keep the node on old programs.
            await self._worker.run(self._kernel.release_old_programs)
        broken = plan.unprogrammed(view.wanted, view.observed, failed)
        await self._publisher.publish(view.parts, view.wanted.instances, plan.unready(failed))
        if self._synced:
            removals = self._removals(view)
            failed += await self._apply(view, removals)
            actions += removals
            if removals and self._endpoints.held:
                # There is room for them now.
                self._wake.set()
        self._programmed = set(view.wanted.instances) - broken
        self._cut_off = plan.cut_off(view.wanted, view.observed, failed)
        if kernel.gaps:
            self._programmed, self._cut_off = set(), set(view.wanted.instances)
        gaps = "; ".join(kernel.gaps)
        self._troubles.report("gap", gaps and f"nothing is announced: {gaps}")
        await self.announce()
        if (later := self._failures.conclude()) is not None:
            self._again(later)
        if kernel.gaps or not passes_on:
            self._again(_RETRY_SECONDS)
        if whole and self._synced:
            await self._look_for_leftovers(state, failed)
        return any(isinstance(action, plan.SetTunnel | plan.DeleteTunnel) for action in actions)

    async def _sync_siblings(self, kernel: KernelState, whole: bool) -> bool:
        """Have the programs know the siblings. Gateways are served, and announced, without them, too."""
        cache, chance = self._cache, self._second_chance
        touched = cache.dirty.siblings | moved(cache.instances, self._namespaces, kernel.namespaces)
        self._namespaces, cache.dirty.siblings = kernel.namespaces, set()
        if not touched and not whole:
            return chance.settled
        instances = cache.instances.keys() if whole else touched & cache.instances.keys()
        interfaces = ((gateway, cache.instances[gateway].interface) for gateway in instances)
        namespaces = namespaces_of(interfaces, kernel.namespaces)
        siblings = dict(cache.siblings) if whole else {g: cache.siblings.get(g) for g in touched}
        await self._worker.run(
            partial(chance.take, siblings, namespaces, whole=whole, may_delete=self._synced)
        )
        if whole:
            await self._worker.collect(chance.compare())
        await self._worker.repeat(chance.work)
        return chance.settled

    async def _look_for_leftovers(self, state: NodeState | None, failed: Sequence[plan.Action]) -> None:
        """Find out whether all that `state` stands for is carried out, and nothing else is here."""
        instances = self._cache.instances
        interfaces = {i.interface for i in instances.values()}
        # An Envoy may name what it cannot reach for as long as its owner likes: that keeps nobody else's.
        insides = {inside for i in instances.values() for inside in i.insides}
        endpoints = self._cache.dirty.endpoints
        tunnels = self._cache.tunnels.keys() | endpoints.kept(insides)
        surplus = await self._worker.run(self._kernel.surplus, interfaces, tunnels)
        elements = frozenset[Element]().union(*(i.elements for i in instances.values()))
        standing = self._routes.standing.difference(*(i.publics for i in instances.values()))
        ours = [
            what
            for what, found in (
                ("tunnels or filters that nobody wants are there", surplus.programs),
                (
                    "endpoints are not as they should be",
                    endpoints.differ(self._cache.known, insides, self._endpoints.held),
                ),
                ("addresses of gateways that are gone are announced", standing),
                ("ports of gateways that are gone are open", self._firewall.open - elements),
            )
            if found
        ]
        links = {name for name in self._parted.values() if name in surplus.interfaces}
        self._parted = {g: name for g, name in self._parted.items() if ours or name in links}
        self.leaving = tuple(sorted(self._parted))
        removed = state is not None and state.removed
        refused = any(type_url == INSTANCE for type_url, _ in self._cache.refused)
        if ours or failed or refused or (surplus.interfaces and not removed):
            if state is not None and state.digest != self.applied:
                self._tries += 1
                self._again(_SOON_SECONDS if self._tries < _TRIES else _RETRY_SECONDS)
                self._say_what_hinders(ours)
            return
        if removed:
            await self._worker.run(self._kernel.leave)
            log.warning("nothing of EPIC's that the agent made is left on this node")
        if state is not None:
            self.applied = state.digest
        self._say_what_hinders(())

    def _say_what_hinders(self, left: Sequence[str]) -> None:
        late = left and self._tries > _TRIES
        text = f"not all that is to go has gone: {', '.join(left)}" if late else ""
        self._troubles.report("leftovers", text)

    def _view(self, kernel: KernelState) -> _View:
        cache, dirty = self._cache, self._cache.dirty
        differences = self._endpoints.differences()
        wanted = {key: d.wanted for key, d in differences.items() if d.wanted is not None}
        there = {key: d.there for key, d in differences.items() if d.there is not None}
        ids = dirty.tunnels | self._kernel.stale | {endpoint.tunnel for endpoint in wanted.values()}
        known = {id_: cache.tunnels[id_] for id_ in ids if cache.known(id_)}
        tunnels = self._kernel.tunnels(ids)
        dirty.tunnels = {id_ for id_ in dirty.tunnels if known.get(id_) != tunnels.get(id_)}
        return _View(
            wanted=Desired(dict(cache.instances), known, wanted),
            observed=plan.Observed(
                kernel.links, kernel.attached, tunnels, there, kernel.delivered, kernel.forwards6
            ),
            parts={gateway: cache.parts.get(gateway) for gateway in dirty.gateways},
        )

    async def _apply(self, view: _View, actions: Sequence[plan.Action]) -> list[plan.Action]:
        """Do this; returns what failed."""
        due = self._failures.due(actions)
        failures = await carry_out(self._worker, self._kernel.apply, due)
        self._failures.note(due, failures)
        undone = {id(action) for action in actions} - {id(action) for action in due}
        troubled = undone | {id(failure.action) for failure in failures}
        self._endpoints.note(actions, troubled)
        for gateway in self._cache.dirty.gateways - view.parts.keys():
            view.parts[gateway] = self._cache.parts.get(gateway)
        return [action for action in actions if id(action) in troubled]

    def _removals(self, view: _View) -> list[plan.Action]:
        """What may go by now."""
        released = self._endpoints.released(plan.leaving(view.wanted, view.observed))
        if self._endpoints.waits:
            self._again(RELEASE_SECONDS)
        return plan.removals(view.wanted, view.observed, released)

    def _again(self, seconds: float) -> None:
        """Look at the node after this time, if not before."""
        loop = asyncio.get_running_loop()
        if self._timer is None or self._timer.when() > loop.time() + seconds:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_later(seconds, self._timed)

    def _timed(self) -> None:
        self._timer, self._whole = None, True
        self._wake.set()
