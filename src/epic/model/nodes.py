# SPDX-License-Identifier: Apache-2.0
"""What becomes of an EPIC node, and what is left of one that was removed."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from epic.model.base import Condition, Kebab, Resource
from epic.model.values.addresses import AnyAddress

NodePhase = Literal["Joining", "Ready", "Cordoned", "Draining", "Removing"]


class BGPSession(Kebab):
    """A session of a node with a router that is down since then; `error` is BIRD's word for it."""

    name: str
    address: str = ""
    since: datetime | None = None
    error: str = ""


class BGPStatus(Kebab):
    """How many sessions a node's BIRD is to have and has, and which are down (the first of them).

    `failure`: why BIRD cannot be asked; empty when it answers.
    """

    configured: int = 0
    established: int = 0
    down: tuple[BGPSession, ...] = ()
    failure: str = ""


class NodeStatus(Kebab):
    """A node's place in its life, and what was heard of it.

    `last_report` is None before the first report, and is noted with whatever else is: later ones that said
    nothing new are known in memory only.
    `removals` counts the instances that the node was told to drop: with it, no digest of what is to be on
    the node comes twice. `lost`: it was removed by force, nobody waits for it any more. `emptied`: nothing
    is left there but what the node itself has of EPIC's. `returning`: a node of that name was removed before,
    and this one has not said yet that nothing is left of that time.
    `envoy_versions` are those that the last run found installed; none: not known. `second_chance`: it passes
    packets on to siblings; `second_chance_refusal` says why it does not. `bgp` is None when its agent does
    not look at a BIRD: something else announces its gateways.
    """

    phase: NodePhase = "Joining"
    since: datetime | None = None
    conditions: tuple[Condition, ...] = ()
    last_report: datetime | None = None
    agent_version: str = ""
    removals: int = 0
    lost: bool = False
    emptied: bool = False
    returning: bool = False
    applied_digest: str = ""
    meant_digest: str = ""
    held_gateways: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    envoy_versions: tuple[str, ...] = ()
    second_chance: bool = False
    second_chance_refusal: str = ""
    bgp: BGPStatus | None = None

    @property
    def unheard(self) -> bool:
        """Whether it is known that no router hears what the node announces."""
        bgp = self.bgp
        return bgp is not None and not bgp.established and bool(bgp.configured or bgp.failure)


class NodeRevocationSpec(Kebab):
    """Certificates of the node that were issued until `before` are worth nothing."""

    before: datetime


class NodeRevocation(Resource):
    """A node that was removed; its name is the node's."""

    kind: ClassVar[str] = "NodeRevocation"
    spec: NodeRevocationSpec


class QuarantineSpec(Kebab):
    """What a lost node may still use: given to nobody before `until`."""

    gateway: str
    node: str
    inside_address: AnyAddress
    public_address: AnyAddress | None = None
    alt_address: AnyAddress | None = None
    dns_names: tuple[str, ...] = ()
    until: datetime


class Quarantine(Resource):
    """The addresses and names of an instance on a node that was removed by force; its name is a number."""

    kind: ClassVar[str] = "Quarantine"
    spec: QuarantineSpec
