# SPDX-License-Identifier: Apache-2.0
"""An instance of a gateway on an EPIC node, and the stages of its life."""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Address
from typing import Annotated, Literal

from pydantic import Field

from epic.model.base import Kebab, now

InstancePhase = Literal["Planned", "Prepared", "Serving", "Draining", "Withdrawn", "Removed"]
Goal = Literal["serve", "park", "restart", "remove"]
UnitState = Literal["", "current", "outdated", "removed"]
Unconnected = Literal["", "pending", "no-room"]

NODE_SILENT = "NodeSilent"
CONFIGURATION_REFUSED = "ConfigurationRefused"
NOT_PROGRAMMED = "NotProgrammed"
ADDRESS_NOT_ANNOUNCED = "AddressNotAnnounced"
WAITS_FOR_AGENTS = "WaitsForAgents"
_TROUBLES = {
    NODE_SILENT: "a node does not report",
    NOT_PROGRAMMED: "a node cannot set up all of its tunnels; the platform's operators can see why",
    ADDRESS_NOT_ANNOUNCED: "a node serves one of two addresses only; the platform's operators can see why",
    CONFIGURATION_REFUSED: "an Envoy refused the configuration; the platform's operators can see why",
}


class ProxyInstance(Kebab):
    """An Envoy of the gateway on an EPIC node: its place in its life, and what was heard of it.

    `phase`, `since` and `reason` are the sequencer's, as is `goal`, what it is to come to. `unit` is what
    the last run on the node found or left: the instance as wanted, another that it had to leave alone
    because it serves, or none. `hold` says why it is not to be announced yet; empty: it may be. Nor is it
    to be while it is `unconnected`: its tunnels are still to be made (`pending`), or its node has no room for
    those to where others that serve have some (`no-room`). One for which that came later is `short`, and
    serves. `listed`: it is in the list of siblings, so that others may pass packets on to it; `awaits` are
    the nodes that have to say that they do not, once they take long to. The last fields are what the node's
    agent says; `error` begins with a reason of ours and a colon, the rest is the agent's own words and for
    the platform's operators alone.
    """

    node: str
    inside_address: IPv4Address
    phase: InstancePhase = "Planned"
    since: datetime = Field(default_factory=now)
    reason: str = ""
    goal: Goal = "serve"
    drain_seconds: Annotated[int, Field(ge=0)] = 0
    unit: UnitState = ""
    envoy_version: str = ""
    run_error: str = ""
    hold: str = ""
    unconnected: Unconnected = ""
    short: bool = False
    listed: bool = False
    awaits: tuple[str, ...] = ()
    ready: bool = False
    announced: bool = False
    drained: bool = False
    serving_revision: str = ""
    error: str = ""

    @property
    def programmed(self) -> bool:
        """Whether the last run left it as it is wanted."""
        return self.unit == "current"

    @property
    def published(self) -> bool:
        """Whether its node is to have it."""
        return self.phase != "Removed"

    @property
    def waits_for_tunnels(self) -> bool:
        """Whether it is not to begin to be announced for want of tunnels."""
        return self.unconnected in {"pending", "no-room"}

    @property
    def reaches_less(self) -> bool:
        """Whether its node has no room for tunnels to where others that serve have some."""
        return self.short or self.unconnected == "no-room"

    @property
    def draining(self) -> bool:
        """Whether its node is to end its connections and its announcement."""
        return self.phase in {"Draining", "Withdrawn"}

    @property
    def lives(self) -> bool:
        """Whether it may have connections, or get some: it serves, drains, or is on its way to serve."""
        return self.phase not in {"Withdrawn", "Removed"}


def reason_of(error: str) -> str:
    """The reason with which an instance's `error` begins."""
    return error.partition(":")[0]


def trouble(error: str) -> str:
    """What an instance's `error` means to the gateway's owner."""
    return _TROUBLES.get(reason_of(error), "an instance is in trouble; the platform's operators can see why")
