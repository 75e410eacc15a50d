# SPDX-License-Identifier: Apache-2.0
"""This node's Envoys: what was published for each, and what each said."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from epic.ads.snapshot import Snapshot
from epic.agent.gateway.envoy.readiness import Envoy, step, wanted

log = logging.getLogger(__name__)


class EnvoyRegistry:
    """Keeps an `Envoy` for each instance; `changed` is called after each change of one."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._envoys: dict[str, Envoy] = {}
        self._revisions: dict[str, str] = {}
        self._published: dict[str, float] = {}
        self._answered: dict[str, float] = {}

    @property
    def envoys(self) -> Mapping[str, Envoy]:
        """What is known, by gateway."""
        return self._envoys

    def answered_at(self, gateway: str) -> float:
        """When the Envoy said last how it is, or did not answer; monotonic seconds."""
        return self._answered.get(gateway, 0.0)

    def published_at(self, gateway: str) -> float:
        """When something was published for the gateway's Envoy last."""
        return self._published.get(gateway, 0.0)

    def keep(self, gateways: Iterable[str], announced: Iterable[str] = ()) -> None:
        """Know these gateways and no others; `announced` served before we came."""
        standing = set(announced)
        known = {g: self._envoys.get(g) or Envoy(served=g in standing) for g in gateways}
        self._envoys = known
        self._revisions = {g: r for g, r in self._revisions.items() if g in known}
        self._published = {g: t for g, t in self._published.items() if g in known}
        self._answered = {g: t for g, t in self._answered.items() if g in known}

    def publish(self, gateway: str, snapshot: Snapshot, revision: str) -> bool:
        """Note what the Envoy is to have; False when it is what it was."""
        versions = wanted(snapshot)
        same = self._envoys[gateway].wanted == versions
        if same and self._revisions.get(gateway) == revision:
            return False
        self._revisions[gateway] = revision
        self._published[gateway] = time.monotonic()
        self._update(gateway, wanted=versions, refusals={} if not same else self._envoys[gateway].refusals)
        return True

    def set_ready(self, gateway: str, ready: bool) -> None:
        """The Envoy says of itself that it is ready, or not."""
        envoy = self._envoys.get(gateway)
        if envoy is not None:
            self._answered[gateway] = time.monotonic()
        if envoy is not None and (envoy.ready is not ready or not envoy.asked):
            log.info("Envoy of gateway %s is %s", gateway, "ready" if ready else "not ready")
            self._update(gateway, ready=ready, asked=True)

    def on_first_request(self, gateway: str, type_url: str, held: Mapping[str, str]) -> None:
        """The Envoy has begun to ask for a type and says what it has of it."""
        if gateway in self._envoys:
            self._hold(gateway, type_url, held)

    def on_ack(self, gateway: str, type_url: str, acked: Mapping[str, str]) -> None:
        """See `epic.ads.delta.server.Listener`."""
        if gateway in self._envoys:
            self._hold(gateway, type_url, acked)

    def on_nack(self, gateway: str, type_url: str, message: str) -> None:
        """See `epic.ads.delta.server.Listener`."""
        if gateway in self._envoys:
            refusals = {**self._envoys[gateway].refusals, type_url: message}
            self._update(gateway, refusals=refusals)

    def on_connect(self, gateway: str) -> None:
        """The Envoy has opened a stream."""
        if gateway in self._envoys:
            self._update(gateway, connected=True, held={}, refusals={})

    def on_disconnect(self, gateway: str) -> None:
        """See `epic.ads.delta.server.Listener`."""
        if gateway in self._envoys:
            self._update(gateway, connected=False)

    def _hold(self, gateway: str, type_url: str, versions: Mapping[str, str]) -> None:
        envoy = self._envoys[gateway]
        refusals = {url: text for url, text in envoy.refusals.items() if url != type_url}
        self._update(gateway, held={**envoy.held, type_url: dict(versions)}, refusals=refusals)

    def _update(self, gateway: str, **changes: object) -> None:
        envoy = replace(self._envoys[gateway], **changes)  # type: ignore[arg-type]
        self._envoys[gateway] = step(envoy, time.monotonic(), self._revisions.get(gateway, ""))
        self._changed()
