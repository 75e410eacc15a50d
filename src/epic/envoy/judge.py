# SPDX-License-Identifier: Apache-2.0
"""Whether Envoy would take a gateway's resources: it is asked about what it was not shown before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

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
        await self._ask(bundle)
        if bundle.shapes is not None:
            self._known |= bundle.shapes
