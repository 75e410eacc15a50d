# SPDX-License-Identifier: Apache-2.0
"""The metrics of an EPIC node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from epic.agent.gateway.control.report import TunnelReport
from epic.agent.runtime.turns import in_turns
from epic.agent.tunnel.events import Events
from epic.agent.tunnel.families import (
    TRAFFIC,
    build_family,
    drops_family,
    events_family,
    failures_family,
    traffic_families,
    tunnel_state_families,
)
from epic.agent.tunnel.health import DEAD_SECONDS
from epic.bpf.dataplane import Address, SecondChanceCounters
from epic.exposition import Family, exposition
from epic.proto import epic_pb2


async def render(
    tunnels: TunnelReport,
    gateways: Mapping[int, str],
    instances: Iterable[epic_pb2.InstanceStatus],
    events: Events,
    failures: Mapping[str, int],
    certificate_end: int | None = None,
    others: Iterable[Family] = (),
) -> str:
    """The metrics of an EPIC node.

    `certificate_end` is in seconds since 1970, None without a certificate.
    """
    up, age, key = tunnel_state_families()
    traffic = traffic_families()
    async for status in in_turns(tunnels.statuses):
        labels = {"tunnel": str(status.id), "gateway": gateways.get(status.id, "")}
        up.add(0 <= status.hello_age <= DEAD_SECONDS, **labels)
        if status.hello_age >= 0:
            age.add(status.hello_age, **labels)
        key.add(status.signing_epoch, **labels)
        for name, _, attribute in TRAFFIC:
            traffic[name].add(getattr(status, attribute), **labels)
    ready = Family("epic_instance_ready", "gauge", "Whether the instance's Envoy answers `ready`.")
    announced = Family("epic_instance_announced", "gauge", "Whether the public address is announced.")
    for instance in instances:
        ready.add(instance.ready, gateway=instance.gateway)
        announced.add(instance.announced, gateway=instance.gateway)
    ends = Family(
        "epic_agent_certificate_end_seconds",
        "gauge",
        "When the node's certificate ends, since 1970; 0: has none.",
    )
    ends.add(certificate_end or 0)
    parts = (
        ends,
        up,
        age,
        key,
        *traffic.values(),
        events_family(events),
        drops_family(tunnels.drops),
        ready,
        announced,
        await _second_chance_family(tunnels.chances),
        *others,
    )
    return exposition((build_family(), failures_family(failures), *parts))


async def _second_chance_family(chances: Mapping[str, SecondChanceCounters]) -> Family:
    family = Family("epic_second_chance_total", "counter", "What became of clients' packets, by gateway.")
    async for gateway in in_turns(sorted(chances)):
        for what, count in vars(chances[gateway]).items():
            family.add(count, gateway=gateway, what=what)
    return family


def siblings_family(nodes: Mapping[Address, bool]) -> Family:
    """The nodes of siblings, and whether each lives."""
    up = Family("epic_sibling_up", "gauge", "Whether another node takes what is passed on to it.")
    for address, lives in nodes.items():
        up.add(lives, address=str(address))
    return up
