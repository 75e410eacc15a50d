# SPDX-License-Identifier: Apache-2.0
"""A NAT that changes its port and its address: an EPIC node goes by what it saw, whatever it is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from agent_control import TUNNEL_ID, Gateway
from agent_node import FAR, Node, eventually, plane
from agent_workload import ADDRESS, Workload

from epic.ads.snapshot import TUNNEL
from epic.bpf.dataplane import Dataplane

pytestmark = pytest.mark.root

OTHER = "172.30.11.77"
"""Another public address of the NAT."""
OWN = (ADDRESS, "192.168.50.12")
"""What the workload node says of itself, which is of no use outside."""
Seen = tuple[str, int]


def give(node: Node, address: str, port: int) -> Seen:
    """The NAT forgets all connections, and has this address and port for the tunnel from now on."""
    node.far.run(
        "nft flush chain inet nat post",
        f"nft add rule inet nat post oifname up0 udp sport 6080 snat ip to {address}:{port}",
        "nft add rule inet nat post oifname up0 masquerade",
        "conntrack -F",
    )
    return address, port


def seen(programs: Dataplane) -> Seen | None:
    """Where the EPIC node sends what is for the workload node."""
    peer = programs.peer(TUNNEL_ID)
    return (str(peer.address), peer.port) if peer is not None else None


def restart_agent(node: Node) -> None:
    node.stop_agent()
    node.start_agent()


def tell_again(node: Node) -> None:
    """The control plane tells of the tunnel anew, with another address that the workload node says it has."""
    before = node.control.published[TUNNEL]
    declared = next(own for own in OWN if Gateway(declared=own).snapshot()[TUNNEL] != before)
    node.control.publish(Gateway(forward=True, declared=declared).snapshot(ADDRESS))


def lose_state(node: Node) -> None:
    """The agent starts without all that it was told, and is told everything again."""
    node.stop_agent()
    for file in (node.directory / "state").iterdir():
        file.unlink()
    node.start_agent()


@pytest.mark.parametrize("then", [restart_agent, tell_again, lose_state])
async def test_what_an_agent_is_told_never_replaces_what_it_has_seen(
    node: Node, workload: Workload, then: Callable[[Node], None]
) -> None:
    node.far.run(f"ip addr add {OTHER}/24 dev up0")
    workload.start_agent()
    await eventually(lambda: node.get().startswith("backend"), 60, "an answer of the backend")
    programs = plane(node.pins)
    for place in ((FAR, 40001), (OTHER, 40002)):
        before, now = seen(programs), give(node, *place)
        places = await watched(programs, lambda now=now: seen(programs) == now, "the NAT's other port")
        assert places <= {before, now}
        reports = len(node.control.reports)
        then(node)
        places = await watched(
            programs,
            lambda reports=reports: len(node.control.reports) > reports + 1 and has_all(node),
            "two reports of an agent that was told",
        )
        assert places == {now}
        assert node.get().startswith("backend"), "no hello was needed for it"


async def watched(programs: Dataplane, condition: Callable[[], bool], what: str) -> set[Seen | None]:
    """All that is seen until the condition holds."""
    places: set[Seen | None] = set()

    def look() -> bool:
        places.add(seen(programs))
        return condition()

    await eventually(look, 60, what)
    return places


def has_all(node: Node) -> bool:
    """Whether the agent has taken what it is told of tunnels."""
    told = {name: found.version for name, found in node.control.published[TUNNEL].items()}
    return node.control.taken.get(TUNNEL) == told
