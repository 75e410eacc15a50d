# SPDX-License-Identifier: Apache-2.0
"""Making the certificates of a node worthless."""

from __future__ import annotations

from epic.model.base import Metadata, now
from epic.model.nodes import NodeRevocation, NodeRevocationSpec
from epic.store.interface import Transaction


def revoke(transaction: Transaction, node: str) -> None:
    """Revoke all certificates that the node has until now."""
    spec = NodeRevocationSpec(before=now())
    stored = transaction.find_readable(NodeRevocation, "", node)
    if stored is None:
        if transaction.exists(NodeRevocation, "", node):
            transaction.delete(NodeRevocation, "", node)
        transaction.create(NodeRevocation(metadata=Metadata(name=node), spec=spec))
    else:
        transaction.update(stored.model_copy(update={"spec": spec}))
