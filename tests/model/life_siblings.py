# SPDX-License-Identifier: Apache-2.0
"""What must hold of siblings: who is announced knows and is known, no index or key is in wrong hands."""

from __future__ import annotations

from collections.abc import Iterable

from life_nodes import EpicNode
from life_plant import Plant

from epic.model.resources import GWProxy, Node
from epic.model.siblings import Siblings
from epic.model.values.naming import GatewayId

_HOLD_MAX = 10
_AWAY = 12


def check(plant: Plant) -> None:
    """At every moment."""
    standing = {node.name for node in plant.store.list(Node) if not node.status.lost}
    for stored in plant.store.list(Siblings):
        gateway = f"{stored.account}.{stored.name}"
        _check_indexes(plant, gateway, stored)
        _check_left(plant, gateway, stored)
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
            known = {s.node for s in plant.epic[sibling.node].known(gateway).siblings}
            assert node.name in known, f"{node.name} announces {gateway}, and {sibling.node} does not know it"


def _check_indexes(plant: Plant, gateway: str, stored: Siblings) -> None:
    """No two nodes have one index in lists with a key in common; between others nothing is passed on."""
    assert len({s.index for s in stored.spec.siblings}) == len(stored.spec.siblings)
    keys = [bytes.fromhex(key.secret.get_secret_value()) for key in stored.spec.keys]
    owners = {(key, s.index): s.node for key in keys for s in stored.spec.siblings}
    for node in plant.epic.values():
        known = node.known(gateway)
        for key in known.keys:
            for sibling in known.siblings:
                owner = owners.setdefault((key.secret, sibling.index), sibling.node)
                where = f"{sibling.node}'s on {node.name}, elsewhere {owner}'s"
                assert owner == sibling.node, f"{gateway}: index {sibling.index} is {where}"


def _check_left(plant: Plant, gateway: str, stored: Siblings) -> None:
    """Nobody passes packets on to one that has left, however long its agent has heard nothing of that."""
    plant.was_off |= {name for name, node in plant.epic.items() if node.is_off}
    if plant.store.get(GWProxy, stored.account, stored.name).deleting:
        return  # nobody waits for anybody
    nodes = {node.name: node for node in plant.store.list(Node)}
    # Who is switched off is out at once, and may be on again before the others have heard of it.
    plant.left_at_once |= {name for name, node in plant.epic.items() if not node.second_chance}
    keys = {bytes.fromhex(key.secret.get_secret_value()) for key in stored.spec.keys}
    for name in set(stored.spec.nodes) - plant.was_off:
        known = plant.epic[name].known(gateway)
        if not keys & {key.secret for key in known.keys}:
            continue  # what it passes on is nobody's
        for sibling in known.siblings:
            asked = nodes.get(sibling.node)
            stands = asked is not None and not asked.status.lost and asked.name not in plant.left_at_once
            assert sibling.leaving or not stands or sibling.node in stored.spec.nodes, (
                f"{name} passes packets of {gateway} on to {sibling.node}, which has left"
            )
