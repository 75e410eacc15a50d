# SPDX-License-Identifier: Apache-2.0
"""What a node is to have, put together of all that there is: the control plane changes what was there."""

from __future__ import annotations

from collections.abc import Iterable

from epic.ads.desired.assemble import THE_NODE
from epic.ads.snapshot import INSTANCE, NODE_STATE, SIBLINGS, TYPES, Resources, Snapshot, Versioned, versioned
from epic.proto import epic_pb2


def node_snapshot(parts: Iterable[Snapshot], siblings: Resources, state: epic_pb2.NodeState) -> Snapshot:
    """From what its gateways contribute; of `siblings` the lists of those gateways."""
    whole: dict[str, dict[str, Versioned]] = {type_url: {} for type_url in TYPES}
    for part in parts:
        for type_url, resources in part.items():
            whole[type_url].update(resources)
    whole[NODE_STATE][THE_NODE] = versioned(state)
    whole[SIBLINGS] = {gateway: siblings[gateway] for gateway in whole[INSTANCE] if gateway in siblings}
    return whole
