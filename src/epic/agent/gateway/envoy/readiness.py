# SPDX-License-Identifier: Apache-2.0
"""Pure: whether a gateway is to be announced from this node, from what is known of its Envoy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from envoy.config.cluster.v3 import cluster_pb2

from epic.ads.snapshot import CLUSTER, ENVOY_TYPES, LISTENER, LOAD_ASSIGNMENT, Snapshot
from epic.model.values.addresses import Address

HELD_BACK_SECONDS = 5.0
"""How long a connected Envoy may take to acknowledge a change before its node is no longer announced."""

ABSENT_SECONDS = 60.0
"""How long a ready Envoy may be without a stream to the agent, for example while the agent restarts."""

RELEASE_SECONDS = 5.0
"""After so long an Envoy that has let go of endpoints, is current or has no stream uses them no more.

Requests that it has sent there go on when it lets go, and need the way for their answers; workload nodes give
them as long. It may give up the endpoints of a removed cluster without a word.
"""

GIVEN_UP_SECONDS = 60.0
"""After so long, no Envoy keeps an endpoint that it was to let go of."""

Versions = Mapping[str, Mapping[str, str]]
"""Versions by type and native name."""


@dataclass(frozen=True)
class Envoy:
    """What is known of one gateway's Envoy. Times are monotonic seconds."""

    asked: bool = False
    """It has been asked at least once since we watch it."""
    ready: bool = False
    connected: bool = False
    wanted: Versions = field(default_factory=dict)
    held: Versions = field(default_factory=dict)
    refusals: Mapping[str, str] = field(default_factory=dict)
    served: bool = False
    """It has had a complete configuration since it became ready (or was announced before us)."""
    behind_since: float | None = None
    revision: str = ""
    """The revision that it has, whole."""

    @property
    def current(self) -> bool:
        """It has acknowledged all that was published for it, and that is something to serve."""
        return (
            self.connected
            and bool(self.wanted.get(LISTENER))
            and all(
                self.held.get(url, {}).get(name) == version
                for url, names in self.wanted.items()
                for name, version in names.items()
            )
        )

    @property
    def exact(self) -> bool:
        """It has acknowledged all clusters and endpoints that were published for it, and holds no others."""
        return self.connected and all(
            self.held.get(url, {}) == self.wanted.get(url, {}) for url in (CLUSTER, LOAD_ASSIGNMENT)
        )

    @property
    def error(self) -> str:
        """Its words for what it refused; empty when it refuses nothing."""
        return "; ".join(text for _, text in sorted(self.refusals.items()))


def wanted(snapshot: Snapshot) -> dict[str, dict[str, str]]:
    """The versions an Envoy must hold of what is published for it.

    It never asks for the endpoints of a cluster that it does not have, so these do not count.
    """
    versions = {url: {n: r.version for n, r in snapshot.get(url, {}).items()} for url in ENVOY_TYPES}
    asked = set()
    for resource in snapshot.get(CLUSTER, {}).values():
        cluster = cluster_pb2.Cluster.FromString(resource.value)
        if cluster.type == cluster_pb2.Cluster.EDS:
            asked.add(cluster.eds_cluster_config.service_name or cluster.name)
    assignments = versions[LOAD_ASSIGNMENT]
    versions[LOAD_ASSIGNMENT] = {name: v for name, v in assignments.items() if name in asked}
    return versions


def step(envoy: Envoy, now: float, revision: str) -> Envoy:
    """Draw the conclusions of a change: called after each one. `revision` is what is published."""
    if not envoy.asked:
        return envoy
    if not envoy.ready:
        return replace(envoy, served=False, behind_since=None, revision="")
    if envoy.current:
        return replace(envoy, served=True, behind_since=None, revision=revision)
    if envoy.behind_since is None:
        return replace(envoy, behind_since=now)
    return envoy


def is_announced(envoy: Envoy, now: float) -> bool:
    """Whether the gateway's route may stand.

    An Envoy gets its first route only with the whole accepted configuration. Afterwards a change under way
    does not take the route away, nor does a refusal (it goes on with the last good configuration, as all
    other nodes' Envoys do), nor a restart of the agent; silence does.
    """
    if not envoy.ready or not envoy.served:
        return False
    if envoy.behind_since is None or (envoy.connected and envoy.refusals):
        return True
    return now - envoy.behind_since < (HELD_BACK_SECONDS if envoy.connected else ABSENT_SECONDS)


def released_until(envoy: Envoy, now: float) -> float:
    """Endpoints that are not among what is published since this time or longer may lose their tunnels."""
    told = envoy.exact or envoy.current or not envoy.connected
    return now - (RELEASE_SECONDS if told else GIVEN_UP_SECONDS)


@dataclass(frozen=True)
class Preconditions:
    """What the rest of the node says of its gateways."""

    programmed: Collection[str] = ()
    """Those whose interface, filters, tunnels and ports are in place."""
    cut_off: Collection[str] = ()
    """Those that cannot serve, whatever their Envoys say."""
    leaving: Collection[str] = ()
    """Those that drain or are held: what stands may stand, but is not made."""


def plan_announcements(
    instances: Mapping[str, tuple[Address, ...]],
    envoys: Mapping[str, Envoy],
    preconditions: Preconditions,
    standing: Collection[Address],
    now: float,
) -> tuple[set[Address], set[Address]]:
    """Addresses whose flag route is to be made, and those whose is to go.

    `instances` are the public addresses of the wanted ones. Of an Envoy that has not been asked yet, a route
    that an earlier agent made for it stays.
    """
    here = instances.keys() - set(preconditions.cut_off)
    good = {g for g in here if g in envoys and is_announced(envoys[g], now)}
    unknown = {g for g in here if g in envoys and envoys[g].served and not envoys[g].asked}
    ready = good & set(preconditions.programmed) - set(preconditions.leaving)
    keep = {address for g in good | unknown for address in instances[g]}
    wanted = {address for g in ready for address in instances[g]}
    return wanted - set(standing), set(standing) - keep
