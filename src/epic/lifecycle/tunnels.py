# SPDX-License-Identifier: Apache-2.0
"""When a deleted tunnel is gone, pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from epic.model.resources import Tunnel

QUARANTINE = timedelta(minutes=10)
"""How long what nobody can be asked about is given to nobody else."""


@dataclass(frozen=True)
class Evidence:
    """What the ends of a deleted tunnel are known to have.

    `epic_node_known`: there is such a node; `epic_end`: it may have the tunnel still. `workload_end`: the
    workload node may have been told of it. `applied` is the revision of the newest list that the workload
    node has carried out; `silent_since` when it was last heard of.
    """

    epic_node_known: bool
    epic_end: bool
    workload_end: bool
    applied: int | None
    silent_since: datetime


def is_released(tunnel: Tunnel, evidence: Evidence, time: datetime) -> bool:
    """Whether both ends have let go of a deleted tunnel, or will never say so.

    The tunnel's own revision is that of its deletion: nothing changes it afterwards.
    """
    deleted = tunnel.metadata.deletion_timestamp
    if deleted is None:
        return False
    epic = not evidence.epic_end if evidence.epic_node_known else time - deleted >= QUARANTINE
    if not evidence.workload_end:
        return epic
    applied = evidence.applied is not None and evidence.applied >= tunnel.metadata.resource_version
    return epic and (applied or time - max(deleted, evidence.silent_since) >= QUARANTINE)
