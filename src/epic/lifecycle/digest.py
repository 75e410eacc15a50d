# SPDX-License-Identifier: Apache-2.0
"""What a node is to have, as one text: a node that reports it has that, and nothing else of EPIC's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import NamedTuple

from epic.model.instances import ProxyInstance
from epic.model.nodes import NodeStatus


class Placed(NamedTuple):
    """An instance on a node; `gateway` is a gateway id."""

    gateway: str
    instance: ProxyInstance


def node_digest(status: NodeStatus, placed: Iterable[Placed]) -> str:
    """The digest of a node with these instances.

    The number of removals is in it: a report from before an instance came says nothing of its going.
    """
    instances = sorted(
        (gateway, str(instance.inside_address), instance.draining)
        for gateway, instance in placed
        if instance.published
    )
    content = json.dumps([instances, status.removals, status.emptied])
    return hashlib.blake2b(content.encode(), digest_size=12).hexdigest()
