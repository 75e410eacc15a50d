# SPDX-License-Identifier: Apache-2.0
"""What handlers are given: the store and the few settings they need."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from ipaddress import IPv4Network
from typing import Annotated, Protocol, cast

from fastapi import Depends, Request

from epic.api.access.connections import Limits
from epic.api.gateway.left_out import LeftOutRoutes
from epic.errors import Forbidden
from epic.ipam.networks import DEFAULT_POOLS, Pools
from epic.live import Live
from epic.log_rate import LogOnChange
from epic.reconcile.current import CurrentWorld
from epic.store.interface import Store
from epic.workloads.identity import Enrolment

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Principal:
    """Who asks; an administrator has no account."""

    name: str
    account: str
    admin: bool
    credential: str = ""
    """The fingerprint of the password that was shown."""
    cluster_ids: frozenset[str] = frozenset()
    """The clusters that the user speaks for; none: all."""


class RunEvents(Protocol):
    """Where the events of runs come from."""

    def follow(self, run: str, *, live: bool) -> AsyncIterator[Mapping[str, object]]:
        """The run's events from its first one; `live` waits for further ones until `finished`."""


@dataclass(frozen=True)
class Context:
    """What the whole API shares."""

    store: Store
    inside_pool: IPv4Network
    run_events: RunEvents
    pools: Pools = DEFAULT_POOLS
    address_quarantine: timedelta = timedelta(minutes=5)
    live: Live = field(default_factory=Live)
    world: CurrentWorld | None = None
    limits: Limits = field(default_factory=Limits)
    left_out: LeftOutRoutes = field(default_factory=LeftOutRoutes)
    no_room: LogOnChange = field(default_factory=lambda: LogOnChange(log))
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process ends: event streams end with it."""
    enrolment: Enrolment | None = None
    """What workload nodes get certificates with; None: they get none here."""

    @cached_property
    def current(self) -> CurrentWorld:
        """What new gateways are planned on: `world`, if somebody has one already."""
        return self.world or CurrentWorld(self.store)


# What looks at nothing but the request is a coroutine: FastAPI calls functions in threads, and each time a
# request waits for one.
async def _context(request: Request) -> Context:
    return cast("Context", request.app.state.context)


async def _principal(request: Request) -> Principal:
    return cast("Principal", request.state.principal)


Ctx = Annotated[Context, Depends(_context)]
Asking = Annotated[Principal, Depends(_principal)]


async def admin_only(principal: Asking) -> None:
    """Refuse everybody but administrators."""
    if not principal.admin:
        raise Forbidden(f"user {principal.name!r} may not do this; only the platform's administrators may")
