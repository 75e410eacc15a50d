# SPDX-License-Identifier: Apache-2.0
"""What must hold of siblings: who is announced knows and is known, no index or key is in wrong hands."""

from __future__ import annotations

from collections.abc import Iterable

from life_nodes import EpicNode
from life_plant import Plant

from epic.ads.snapshot import Resources
from epic.model.naming import GatewayId
from epic.model.resources import Node
from epic.model.siblings import Siblings
from epic.proto import epic_pb2

_HOLD_MAX = 10
_AWAY = 12


def check(plant: Plant) -> None:
    """At every moment."""
    standing = {node.name for node in plant.store.list(Node) if not node.status.lost}
    for stored in plant.store.list(Siblings):
        gateway = f"{stored.account}.{stored.name}"
        _check_indexes(plant, gateway, stored)
        current = {bytes.fromhex(key.secret.get_secret_value()) for key in stored.spec.keys}
        # What a node knows that was removed as planned goes with the next rotation.
        planned = {former.node for former in stored.spec.former if former.dismissed}
        for node in plant.epic.values():
            removed = node.name not in standing | planned
            assert not (removed and node.known_keys & current), (
                f"{node.name} was removed and knows the key of {gateway}"
            )


def check_announced(plant: Plant, node: EpicNode, gateways: Iterable[str]) -> None:
    """A node that hears what it is to do has begun to announce these."""
    for gateway in gateways:
        name = GatewayId.parse(gateway)
        stored = plant.store.find(Siblings, name.account, name.proxy)
        found = next((s for s in stored.spec.siblings if s.node == node.name), None) if stored else None
        if stored is None or found is None:
            continue
        if node.first_announced[gateway] <= found.since.timestamp():
            continue  # it served before it could pass packets on
        over = plant.clock() - found.since
        for sibling in stored.spec.siblings:
            away = plant.clock.seconds() - plant.last_report.get(sibling.node, 0) > _AWAY
            # Who came later has known it from the beginning. Who leaves serves nobody.
            if sibling.left:
                assert away or gateway not in plant.epic[sibling.node].announced.values(), (
                    f"{sibling.node} leaves the siblings of {gateway} and announces it"
                )
                continue
            if sibling.joined > found.joined or away or over.total_seconds() >= _HOLD_MAX:
                continue
            known = {s.node for s in _read(plant.epic[sibling.node].siblings, gateway).siblings}
            assert node.name in known, f"{node.name} announces {gateway}, and {sibling.node} does not know it"


def _check_indexes(plant: Plant, gateway: str, stored: Siblings) -> None:
    """No two nodes have one index in lists with a key in common; between others nothing is passed on."""
    assert len({s.index for s in stored.spec.siblings}) == len(stored.spec.siblings)
    keys = [bytes.fromhex(key.secret.get_secret_value()) for key in stored.spec.keys]
    owners = {(key, s.index): s.node for key in keys for s in stored.spec.siblings}
    for node in plant.epic.values():
        known = _read(node.siblings, gateway)
        for key in known.keys:
            for sibling in known.siblings:
                owner = owners.setdefault((key.secret, sibling.index), sibling.node)
                where = f"{sibling.node}'s on {node.name}, elsewhere {owner}'s"
                assert owner == sibling.node, f"{gateway}: index {sibling.index} is {where}"


def _read(lists: Resources, gateway: str) -> epic_pb2.Siblings:
    return (
        epic_pb2.Siblings.FromString(lists[gateway].body.value) if gateway in lists else epic_pb2.Siblings()
    )
