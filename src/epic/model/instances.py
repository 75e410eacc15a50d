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


class ProxyInstance(Kebab):
    """An Envoy of the gateway on an EPIC node: its place in its life, and what was heard of it.

    `phase`, `since` and `reason` are the sequencer's, as is `goal`, what it is to come to. `unit` is what
    the last run on the node found or left: the instance as wanted, another that it had to leave alone
    because it serves, or none. The last fields are what the node's agent says.
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
    def draining(self) -> bool:
        """Whether its node is to end its connections and its announcement."""
        return self.phase in {"Draining", "Withdrawn"}
