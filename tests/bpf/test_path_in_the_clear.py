# SPDX-License-Identifier: Apache-2.0
"""Nothing with an inside address leaves a node past the tunnel: with real links, VLANs and routes."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import foreign
import pytest
from namespaces import Namespace, eventually
from path_network import INSIDE, INSTANCE_INTERFACE, NODE, Network, Plan, udp_socket

from epic.bpf.dataplane import Dataplane
from epic.bpf.programs import syscalls

pytestmark = pytest.mark.root

SEEN = """table inet watch {
            counter inside { }
            chain first { type filter hook prerouting priority raw;
                          ip saddr 100.64.0.0/10 counter name inside;
                          ip daddr 100.64.0.0/10 counter name inside; }
          }"""


@pytest.fixture
def filters_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is one without TCX."""
    monkeypatch.setattr(syscalls, "_TCX_EGRESS", 4711)


@pytest.fixture
def network(bpffs: Path, object_file: Path) -> Iterator[Network]:
    """The network between the nodes counts what it sees of inside addresses."""
    built = Network(bpffs, object_file, Plan(nats=0))
    built.nat.nft(SEEN)
    built.program()
    built.connect()
    yield built
    built.close()


def seen(network: Network) -> bool:
    return "packets 0 " not in network.nat.run("nft list counter inet watch inside")


def send(namespace: Namespace, source: IPv4Address, destination: IPv4Address) -> None:
    with udp_socket(namespace, source, 0) as opened:
        opened.sendto(b"in the clear", (str(destination), 9))


def dropped(plane: Dataplane, reason: str) -> bool:
    return eventually(lambda: plane.drop_counters()[reason] > 0)


def test_an_instance_without_its_filter_reaches_nobody(network: Network) -> None:
    """Somebody took the filter at its interface away; the routing table takes its packets to the underlay."""
    network.epic.run(f"tc qdisc del dev {INSTANCE_INTERFACE} clsact")
    send(network.instance, INSIDE, NODE)
    assert dropped(network.gateway, "inside_source")
    assert not seen(network)


def test_what_is_forwarded_to_an_endpoint_elsewhere_is_dropped(network: Network) -> None:
    """A pod's address that is on another node now, or another pod's."""
    network.node.run(f"ip addr add {INSIDE}/32 dev lo")
    send(network.node, INSIDE, IPv4Address("198.51.100.77"))
    assert dropped(network.workload, "inside_source")
    assert not seen(network)


def test_a_vlan_of_the_underlay_is_no_way_out(filters_alone: None, network: Network, bpffs: Path) -> None:
    """The tag is not in the frame yet, but beside it for the device. A filter puts it there, after links."""
    foreign.tag(network.node, "up0", bpffs / "foreign")
    send(network.node, NODE, IPv4Address("198.51.100.77"))
    assert network.dropped() == {}
    send(network.node, NODE, INSIDE)
    assert dropped(network.workload, "inside_vlan")
