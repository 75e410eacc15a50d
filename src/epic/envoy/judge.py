# SPDX-License-Identifier: Apache-2.0
"""Whether Envoy would take a gateway's resources: it is asked about what it was not shown before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import islice

from envoy.config.route.v3.route_components_pb2 import VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from google.protobuf.message import Message

from epic.envoy.builders.shapes import shape_of
from epic.envoy.resources import Bundle

Ask = Callable[[Bundle], Awaitable[None]]
"""Raises Invalid when Envoy refuses, Unavailable when it cannot be asked."""


class Judge:
    """Remembers the shapes of what Envoy has taken.

    Of another resource of a known shape only texts and numbers differ, and those are bounded where routes are
    judged and where resources are built. What templates rendered is Envoy's to judge each time.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._known: set[str] = set()

    async def judge(self, bundle: Bundle) -> None:
        """Raises Invalid with Envoy's words when it would refuse the bundle, Unavailable when unknown."""
        if bundle.shapes is not None and bundle.shapes <= self._known:
            return
        if bundle.shapes is None:
            await self._ask(bundle)
        else:
            await self._ask(await asyncio.to_thread(sample, bundle))
            self._known |= bundle.shapes


def sample(bundle: Bundle) -> Bundle:
    """All listeners of what the code has built, and one of each kind of the rest.

    An Envoy takes many seconds to judge thousands of clusters and routes of a few kinds.
    """
    seen: set[str] = set()
    routes = {name: _sample(configuration, seen) for name, configuration in bundle.routes.items()}
    # All clusters are of one kind.
    return replace(bundle, clusters=dict(islice(bundle.clusters.items(), 1)), routes=routes)


def _sample(configuration: RouteConfiguration, seen: set[str]) -> RouteConfiguration:
    found = RouteConfiguration()
    found.CopyFrom(configuration)
    del found.virtual_hosts[:]
    for host in configuration.virtual_hosts:
        head = VirtualHost()
        head.CopyFrom(host)
        del head.routes[:]
        is_new = _note(head, seen)
        head.routes.extend(route for route in host.routes if _note(route, seen))
        if is_new or head.routes:
            found.virtual_hosts.append(head)
    return found


def _note(message: Message, seen: set[str]) -> bool:
    """Whether none of its shape was seen before."""
    shape = shape_of(message)
    is_new = shape not in seen
    seen.add(shape)
    return is_new
