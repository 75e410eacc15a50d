# SPDX-License-Identifier: Apache-2.0
"""The metrics of a workload node."""

from __future__ import annotations

from collections.abc import Mapping

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
from epic.agent.workload.control.reports import StatusSample
from epic.exposition import Family, exposition


async def render(sample: StatusSample, events: Events, failures: Mapping[str, int], problems: int = 0) -> str:
    """The metrics of a workload node; `problems` counts what is wrong with it now."""
    up, age, key = tunnel_state_families()
    traffic = traffic_families()
    trip = Family(
        "epic_tunnel_round_trip_seconds", "gauge", "Time from the last answered hello to its answer."
    )
    loss = Family("epic_tunnel_hello_loss_ratio", "gauge", "Part of the last hellos without an answer.")
    async for id_, tunnel in in_turns(sorted(sample.tunnels.items())):
        labels = {"tunnel": str(id_), "gateway": tunnel.gateway}
        key.add(tunnel.signing, **labels)
        if (count := sample.counters.get(id_)) is not None:
            for name, _, attribute in TRAFFIC:
                traffic[name].add(getattr(count, attribute), **labels)
        health = sample.health.get(id_)
        up.add(health is not None and health.alive, **labels)
        if health is None:
            continue
        if health.last_answer is not None:
            age.add(sample.now - health.last_answer, **labels)
        if health.round_trip is not None:
            trip.add(health.round_trip, **labels)
        if (lost := health.loss(sample.now)) is not None:
            loss.add(lost, **labels)
    wrong = Family("epic_agent_problems", "gauge", "How much is wrong with the node now; the log says what.")
    wrong.add(problems)
    parts = (
        wrong,
        up,
        age,
        key,
        trip,
        loss,
        *traffic.values(),
        events_family(events),
        drops_family(sample.drops),
    )
    return exposition((build_family(), failures_family(failures), *parts))
