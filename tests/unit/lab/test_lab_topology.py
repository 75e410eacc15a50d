# SPDX-License-Identifier: Apache-2.0
"""Reading the lab's topology: the file that ships, what is derived from it, and what is refused."""

from __future__ import annotations

import copy
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.epic.gateway.plugins.module_utils._lab_topology import (
    End,
    Link,
    TopologyError,
    read_topology,
)

LAB = Path(__file__).parents[3] / "inventories/lab"

PAIR: dict[str, Any] = {
    "management": {"network": "10.9.0.0/24", "controller": "10.9.0.1"},
    "hosts": {
        "a": {"management": "10.9.0.2", "gateway": "172.30.1.2", "sysctls": {"net.ipv4.ip_forward": 1}},
        "b": {"management": "10.9.0.3", "services": ["frr"]},
    },
    "links": [{"a": "up0 172.30.1.1/24", "b": "to-a 172.30.1.2/24"}],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """PAIR with another value at a path such as `hosts.a.gateway`."""
    data = copy.deepcopy(PAIR)
    *parents, last = path.split(".")
    place: Any = data
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    place[int(last) if isinstance(place, list) else last] = value
    return data


def test_a_link_gives_both_hosts_their_end() -> None:
    topology = read_topology(PAIR, "lab")
    left = End("a", "up0", ip_interface("172.30.1.1/24"))
    right = End("b", "to-a", ip_interface("172.30.1.2/24"))
    assert topology.links == (Link(left, right),)
    assert [host.ends for host in topology.hosts] == [(left,), (right,)]


def test_settings_of_a_host_are_read() -> None:
    a, b = read_topology(PAIR, "lab").hosts
    assert (a.management, a.gateway) == (ip_interface("10.9.0.2/24"), ip_address("172.30.1.2"))
    assert a.sysctls == (("net.ipv4.ip_forward", "1"),)
    assert b.services == ("frr",)
    assert b.gateway is None


def test_a_host_is_named_after_its_underlay_address_whatever_the_order_of_links() -> None:
    links = [{"a": "x 172.30.2.1/24", "b": "y 172.30.2.2/24"}, *PAIR["links"]]
    a, b = read_topology({**PAIR, "links": links}, "lab").hosts
    assert (str(a.address), str(b.address)) == ("172.30.1.1", "172.30.2.2")


def test_a_host_without_links_is_named_after_its_management_address() -> None:
    data = {**changed("hosts.a.gateway", None), "links": []}
    assert str(read_topology(data, "lab").hosts[0].address) == "10.9.0.2"


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("hosts", {}, "the topology has no hosts"),
        ("lnks", [], "the topology: unknown key 'lnks'; known are hosts, links, management"),
        ("hosts.a.gatway", "1", "hosts.a: unknown key 'gatway'; known are"),
        ("hosts.a", "router", "hosts.a must be a mapping of"),
        ("hosts.a", {}, "hosts.a lacks 'management', its address in 10.9.0.0/24"),
        ("hosts.a.management", "10.8.0.2", "10.8.0.2 is not in the management network 10.9.0.0/24"),
        ("hosts.a.management", "here", "hosts.a.management: Expected 4 octets in 'here'"),
        ("hosts.a.management", "10.9.0.3", "the management address 10.9.0.3 is used twice"),
        ("hosts.a.management", "10.9.0.1", "the management address 10.9.0.1 is used twice"),
        ("hosts.a.gateway", "172.30.9.9", "172.30.9.9 is in no network of this host's links"),
        ("hosts.a.sysctls", {"vm.swappiness": 1}, "'vm.swappiness' would change this machine"),
        ("hosts.a.masquerade", "eth9", "'eth9' is not an interface of this host's links"),
        ("hosts.Upper", {"management": "10.9.0.4"}, "a lower-case DNS label of at most 11 characters"),
        ("hosts.twelve-chars", {"management": "10.9.0.4"}, "a lower-case DNS label of at most 11 characters"),
        ("hosts.mgmt", {"management": "10.9.0.4"}, "hosts.mgmt: a host's name is"),
        ("management.network", "10.9.0.1/24", "management: 10.9.0.1/24 has host bits set"),
        ("management", {"network": "10.9.0.0/24"}, "management lacks 'controller'"),
        ("links.0", {"a": "up0 172.30.1.1/24"}, "links[0] must name two hosts, as in"),
        ("links.0.b", "up0 172.30.2.2/24", "172.30.1.1/24 and 172.30.2.2/24 are in different networks"),
        ("links.0.b", "up0 172.30.1.2", "write interface and address with its prefix length"),
        ("links.0.b", "up0 172.30.1.400/24", "links[0].b:"),
        ("links.0.b", "mgmt 172.30.1.2/24", "'mgmt' cannot be an interface"),
        ("links.0.b", "sixteen-letters0 172.30.1.2/24", "'sixteen-letters0' cannot be an interface"),
        ("links.0.b", "up0 172.30.1.1/24", "the link address 172.30.1.1 is used twice"),
        (
            "links.0",
            {"a": "up0 172.30.1.1/24", "c": "up0 172.30.1.2/24"},
            "there is no host 'c'; hosts are a, b",
        ),
        ("links", PAIR["links"] * 2, "the interface a:up0 is used twice"),
    ],
)
def test_a_wrong_entry_is_named_with_what_would_be_right(path: str, value: Any, complaint: str) -> None:
    with pytest.raises(TopologyError) as error:
        read_topology(changed(path, value), "lab")
    assert complaint in str(error.value)


def test_the_inventory_has_the_hosts_and_addresses_of_the_topology() -> None:
    topology = read_topology(yaml.safe_load((LAB / "topology.yml").read_text()), "lab")
    groups = yaml.safe_load((LAB / "hosts.yml").read_text())["all"]["children"]
    inventory = {name: host["ansible_host"] for name, host in groups["lab_hosts"]["hosts"].items()}
    assert inventory == {host.name: str(host.management.ip) for host in topology.hosts}
    named = {name for group in groups.values() for name in group["hosts"]}
    assert named == set(inventory)
