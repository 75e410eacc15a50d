# SPDX-License-Identifier: Apache-2.0
"""Pure: the metrics that both ends of tunnels have."""

from __future__ import annotations

from collections.abc import Mapping

from epic import __version__
from epic.agent.tunnel.events import Events
from epic.exposition import Family

TRAFFIC = (
    ("received_packets", "Inner packets from the far end.", "rx_packets"),
    ("received_bytes", "Inner bytes from the far end.", "rx_bytes"),
    ("sent_packets", "Inner packets to the far end.", "tx_packets"),
    ("sent_bytes", "Inner bytes to the far end.", "tx_bytes"),
)
"""Name of the metric, help, and the counter's name."""


def build_family() -> Family:
    """The agent's version."""
    family = Family("epic_agent_info", "gauge", "The agent's version.")
    family.add(1, version=__version__)
    return family


def failures_family(failures: Mapping[str, int]) -> Family:
    """How often tasks of the agent failed."""
    family = Family("epic_agent_task_failures_total", "counter", "How often a task failed and ran again.")
    for task, count in sorted(failures.items()):
        family.add(count, task=task)
    return family


def tunnel_state_families() -> tuple[Family, Family, Family]:
    """Whether tunnels are up, when they were heard of last, which key signs."""
    return (
        Family("epic_tunnel_up", "gauge", "Whether the far end was heard of lately."),
        Family("epic_tunnel_hello_age_seconds", "gauge", "Time since the last verified control packet."),
        Family("epic_tunnel_key_epoch", "gauge", "Epoch of the key that signs."),
    )


def traffic_families() -> dict[str, Family]:
    """What tunnels carried, by the names in `TRAFFIC`."""
    return {name: Family(f"epic_tunnel_{name}_total", "counter", text) for name, text, _ in TRAFFIC}


def drops_family(drops: Mapping[str, int]) -> Family:
    """Dropped packets, by reason."""
    family = Family("epic_drops_total", "counter", "Packets that the tunnel programs dropped.")
    for reason, count in sorted(drops.items()):
        family.add(count, reason=reason)
    return family


def events_family(events: Events) -> Family:
    """What happened to tunnels, by tunnel and event."""
    family = Family("epic_tunnel_events_total", "counter", "How often a tunnel came up, moved, went down.")
    for (tunnel, what), count in sorted(events.items()):
        family.add(count, tunnel=str(tunnel), event=what)
    return family
