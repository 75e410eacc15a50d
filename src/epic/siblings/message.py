# SPDX-License-Identifier: Apache-2.0
"""What the nodes of siblings are sent, pure."""

from __future__ import annotations

from epic.model.siblings import SiblingsSpec
from epic.model.values.addresses import both
from epic.model.values.naming import GatewayId
from epic.proto import epic_pb2
from epic.siblings.listing import in_order


def message(gateway: GatewayId, spec: SiblingsSpec) -> epic_pb2.Siblings:
    """The list for all nodes in it: it is the same for each."""
    return epic_pb2.Siblings(
        gateway=str(gateway),
        public_addresses=map(str, both(spec.public_address, spec.alt_address)),
        siblings=[
            epic_pb2.Sibling(
                node=s.node,
                index=s.index,
                address=str(s.address),
                draining=s.draining,
                leaving=bool(s.left),
                joined=s.joined,
            )
            for s in in_order(spec.siblings)
        ],
        keys=[
            epic_pb2.Key(epoch=key.epoch, secret=bytes.fromhex(key.secret.get_secret_value()))
            for key in sorted(spec.keys, key=lambda key: key.epoch)
        ],
        signing_epoch=spec.signing_epoch,
    )
