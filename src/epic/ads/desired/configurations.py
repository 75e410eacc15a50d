# SPDX-License-Identifier: Apache-2.0
"""The accepted configuration of each gateway: translated, validated, and kept when a newer one is bad."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from epic.ads.desired.assemble import Accepted
from epic.ads.desired.objects import Inputs
from epic.ads.desired.revisions import Revisions
from epic.envoy.builders.routes import RoutePieces
from epic.envoy.isolated import documents
from epic.envoy.resources import Bundle, assemble
from epic.envoy.templating import Task, tasks
from epic.errors import EpicError, Invalid
from epic.gatewayapi.backends import missing_ports
from epic.gatewayapi.namespaces import own_namespaces
from epic.gatewayapi.routing import Cluster
from epic.gatewayapi.target_ports import TargetPorts
from epic.gatewayapi.translate import Translation, translate
from epic.model.gatewayapi import GatewaySpec
from epic.model.resources import EnvoyResources, GWRoute
from epic.model.values.naming import GatewayId
from epic.tunnels import proxy_services
from epic.workqueue.backoff import Backoff
from epic.workqueue.threads import ThreadPool
from epic.workqueue.turns import AccountTurns

log = logging.getLogger(__name__)

Validate = Callable[[Bundle], Awaitable[None]]
Settled = Callable[[GatewayId], None]

_RETRY = Backoff(first=5.0, longest=60.0)
_AT_ONCE = 4
_TRANSLATED_AT_ONCE = 2
"""Each thread that computes makes all others of the process wait for it, such as requests."""
_NOT_STORED = "The configuration cannot be stored at present; it is tried again"


@dataclass(frozen=True)
class Key:
    """What a configuration depends on: endpoints change it only when Services or ports come or go."""

    gateway: GatewayId
    spec: GatewaySpec | None
    ports: tuple[object, ...]
    names: tuple[str, ...]
    own_namespaces: Mapping[str, frozenset[str]]
    routes: tuple[GWRoute, ...]
    services: frozenset[str]
    missing: frozenset[Cluster]
    templates: EnvoyResources


@dataclass
class _Entry:
    key: Key
    inputs: Inputs
    accepted: Accepted | None = None
    problem: EpicError | None = None
    kept: EpicError | None = None
    """Why no other configuration than the accepted one is to be made now."""
    built: Key | None = None
    judged: bool = False
    gone: bool = False
    pieces: RoutePieces = field(default_factory=RoutePieces)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    before: asyncio.Task[None] | None = None
    """The work on an earlier gateway of that name."""


def key_of(inputs: Inputs) -> Key:
    """The part of the inputs that decides on the configuration."""
    spec = inputs.proxy.spec
    existing = {s.spec.parent_ref.uid for s in inputs.slices}
    services = frozenset(existing & proxy_services(inputs.proxy.name, inputs.routes))
    ports: dict[str, list[TargetPorts]] = {uid: [] for uid in services}
    for piece in inputs.slices:
        if piece.spec.parent_ref.uid in services:
            ports[piece.spec.parent_ref.uid].append(inputs.ports[piece.name])
    return Key(
        gateway=inputs.proxy.id,
        spec=spec.gateway,
        ports=spec.public_ports,
        names=(*map(str, inputs.proxy.addresses), spec.display_name, spec.client_ref.namespace),
        own_namespaces=own_namespaces(inputs.proxy, inputs.members),
        routes=inputs.routes,
        services=services,
        missing=missing_ports(inputs.routes, ports),
        templates=inputs.templates,
    )


class Configurations:
    """Builds configurations, each gateway in its own task; calls `settled` when a gateway's has changed."""

    def __init__(self, validate: Validate, settled: Settled, revisions: Revisions) -> None:
        self._validate = validate
        self._revisions = revisions
        self._settled = settled
        self._turns = AccountTurns(_AT_ONCE)
        self._files = ThreadPool("revisions", _AT_ONCE)
        self._translator = _Translator()
        self._entries: dict[GatewayId, _Entry] = {}
        self._ending: dict[GatewayId, asyncio.Task[None]] = {}

    def accepted(self, gateway: GatewayId) -> Accepted | None:
        """The newest configuration that was found good."""
        entry = self._entries.get(gateway)
        return entry.accepted if entry else None

    def problem(self, gateway: GatewayId) -> EpicError | None:
        """Why the newest configuration is not the accepted one."""
        entry = self._entries.get(gateway)
        return entry.kept or entry.problem if entry else None

    def is_settled(self, gateway: GatewayId) -> bool:
        """Whether a configuration of the gateway was judged, whatever the result."""
        entry = self._entries.get(gateway)
        return entry is not None and entry.judged

    def want(self, inputs: Inputs) -> None:
        """See to it that the gateway's configuration is the one of these inputs."""
        key = key_of(inputs)
        entry = self._entry(inputs, key)
        entry.kept = None
        if entry.key != key:
            entry.changed.set()
        entry.key, entry.inputs = key, inputs
        if entry.task is None and entry.built != key:
            entry.task = asyncio.create_task(self._build(entry))

    def keep(self, inputs: Inputs, problem: EpicError) -> None:
        """Let the gateway have the configuration that was accepted last, for this reason."""
        entry = self._entry(inputs, key_of(inputs))
        entry.kept, entry.inputs = problem, inputs
        if entry.task is None and not entry.judged:
            entry.task = asyncio.create_task(self._build(entry))

    async def end(self) -> None:
        """End what is being built.

        A loop that ends cancels an Envoy's start and the task that connects its pipes: asyncio then hangs.
        """
        building = [entry.task for entry in self._entries.values() if entry.task is not None]
        building += self._ending.values()
        for task in building:
            task.cancel()
        await asyncio.gather(*building, return_exceptions=True)

    def _entry(self, inputs: Inputs, key: Key) -> _Entry:
        entry = self._entries.get(key.gateway)
        before = None
        if entry is not None and entry.inputs.proxy.status.service != inputs.proxy.status.service:
            # Deleted and made anew, though only the new one was heard of.
            before, entry = self._drop(key.gateway), None
        if entry is None:
            before = before or self._ending.get(key.gateway)
            entry = self._entries[key.gateway] = _Entry(key, inputs, before=before)
        return entry

    def forget(self, gateway: GatewayId) -> None:
        """The gateway is gone."""
        self._drop(gateway)

    def _drop(self, gateway: GatewayId) -> asyncio.Task[None] | None:
        """Forget the gateway; what is being done for it may still write, and cleans up at its end."""
        entry = self._entries.pop(gateway, None)
        self._revisions.forget(gateway)
        if entry is None:
            return None
        entry.gone = True
        entry.changed.set()
        if entry.task is not None:
            self._ending[gateway] = entry.task
        return entry.task

    async def _build(self, entry: _Entry) -> None:
        gateway, retries = entry.key.gateway, 0
        try:
            if entry.before is not None:
                await asyncio.wait([entry.before])
            if not entry.judged:
                service = entry.inputs.proxy.status.service
                entry.accepted = await self._files.run(self._revisions.load, gateway, service)
            if entry.kept is not None and not entry.gone:
                entry.judged = True
                self._settled(gateway)
            while entry.built != entry.key and not entry.gone and entry.kept is None:
                key, inputs = entry.key, entry.inputs
                entry.changed.clear()
                async with self._turns.turn(gateway.account):
                    retry = await self._judge(entry, inputs, key)
                entry.built, entry.judged = key, True
                if not entry.gone:
                    self._settled(gateway)
                retries = retries + 1 if retry else 0
                if retry and not entry.gone:
                    await _until_changed(entry, _RETRY.delay(retries))
                    entry.built = None
        finally:
            if entry.gone:
                self._revisions.forget(gateway)
                if self._ending.get(gateway) is entry.task:
                    del self._ending[gateway]
            entry.task = None

    async def _judge(self, entry: _Entry, inputs: Inputs, key: Key) -> bool:
        """Build and validate; returns whether the result says nothing of the configuration itself."""
        try:
            candidate = await self._translator.translate(inputs, key, entry.pieces)
            if entry.accepted is None or candidate.bundle.revision != entry.accepted.bundle.revision:
                await self._validate(candidate.bundle)
                service = inputs.proxy.status.service
                await self._files.run(self._revisions.save, candidate, service)
        except EpicError as error:
            self._kept(entry, error, error)
            return not isinstance(error, Invalid)
        except OSError as error:
            self._kept(entry, error, EpicError(_NOT_STORED))
            return True
        except Exception:
            # A fault of ours with one gateway's input must not hold up the others.
            log.exception("gateway %s keeps its configuration", key.gateway)
            entry.problem = EpicError(
                "The configuration cannot be translated; the control plane's log says why"
            )
            return False
        entry.accepted, entry.problem = candidate, None
        return False

    def _kept(self, entry: _Entry, error: Exception, problem: EpicError) -> None:
        """The gateway keeps what it has; what is tried again and fails of the same is not logged again."""
        if str(problem) != str(entry.problem):
            log.warning("gateway %s keeps its configuration: %s", entry.key.gateway, error)
        entry.problem = problem


async def _until_changed(entry: _Entry, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await entry.changed.wait()


class _Translator:
    """Makes configurations, in threads of its own."""

    def __init__(self) -> None:
        self._turns = AccountTurns(_TRANSLATED_AT_ONCE)
        self._threads = ThreadPool("translation", _TRANSLATED_AT_ONCE)

    async def translate(self, inputs: Inputs, key: Key, pieces: RoutePieces) -> Accepted:
        """The configuration of these inputs, not validated yet. Raises Invalid."""
        if not inputs.proxy.addresses:
            raise Invalid("The gateway has no public address yet")
        account, templates = inputs.proxy.account, inputs.templates
        async with self._turns.turn(account):
            translation, work = await self._threads.run(_translation, inputs, key)
        routing = translation.routing
        rendered = await documents(work)
        async with self._turns.turn(account):
            bundle = await self._threads.run(assemble, routing, templates, rendered, pieces)
        return Accepted(routing, bundle, translation.left_out)


def _translation(inputs: Inputs, key: Key) -> tuple[Translation, list[Task]]:
    """The gateway's routing, and the templates to be rendered for it."""
    translation = translate(inputs.proxy, inputs.routes, key.services, key.missing, inputs.members)
    return translation, tasks(translation.routing, inputs.templates)
