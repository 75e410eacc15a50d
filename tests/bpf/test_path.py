"""The whole path: from an instance through NAT to a workload node and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from namespaces import eventually
from path_network import NODE, Network, hello, udp_socket

pytestmark = pytest.mark.root


@pytest.fixture
def network(bpffs: Path, object_file: Path) -> Iterator[Network]:
    built = Network(bpffs, object_file)
    yield built
    built.close()


def test_ping_crosses_after_the_first_hello(network: Network) -> None:
    network.program()
    agent = udp_socket(network.node, NODE, 6080)
    hello(agent)
    assert eventually(lambda: network.gateway.peer(7) is not None)
    print(network.gateway.peer(7))
    print(network.instance.run(f"ping -c 2 -W 1 {NODE}"))
