# SPDX-License-Identifier: Apache-2.0
"""The plan of the lab: machines and their digests, the step each host needs, the commands for networks."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.epic.gateway.plugins.module_utils._lab_plan import (
    File,
    Keys,
    Machine,
    Names,
    Seen,
    State,
    Step,
    describe,
    expected_network,
    hardware_address,
    known_hosts,
    link_command,
    machines,
    network_commands,
    port_commands,
    seen_network,
    ssh_config,
    steps,
    supervisor_script,
)
from ansible_collections.epic.gateway.plugins.module_utils._lab_topology import Topology, read_topology

NAMES = Names("lab")
KEYS = {
    name: Keys(f"private {name}\n", f"ssh-ed25519 {name}\n", "ssh-ed25519 login\n") for name in ("a", "b")
}


def topology(**settings: Any) -> Topology:
    """Two hosts and a link; `settings` are more of host a's."""
    return read_topology(
        {
            "management": {"network": "10.9.0.0/24", "controller": "10.9.0.1"},
            "hosts": {
                "a": {"management": "10.9.0.2", "gateway": "172.30.1.2", **settings},
                "b": {"management": "10.9.0.3"},
            },
            "links": [{"a": "up0 172.30.1.1/24", "b": "to-a 172.30.1.2/24"}],
        },
        "lab",
    )


def built(
    image: str = "image-1", files: dict[str, list[File]] | None = None, layer: str = "", **settings: Any
) -> list[Machine]:
    """The machines; `layer` is one that only host a has over the image."""
    disks = {"a": [Path(layer), Path(image)] if layer else [Path(image)], "b": [Path(image)]}
    return machines(topology(**settings), disks, KEYS, files or {})


def running(wanted: list[Machine]) -> dict[str, Seen]:
    """The hosts as they are when nothing is to be done."""
    return {
        machine.host.name: Seen(machine.digest, State.RUNNING, expected_network(machine.host))
        for machine in wanted
    }


def content(machine: Machine, path: str) -> str:
    return next(file.content for file in machine.files if file.path == path)


# --- machines


def test_every_host_knows_the_names_of_all() -> None:
    for machine in built():
        assert "172.30.1.1 a\n172.30.1.2 b\n" in content(machine, "/etc/hosts")


def test_services_and_sysctls_come_up_with_the_host() -> None:
    a, _ = built(services=["frr", "nftables"], sysctls={"net.ipv4.ip_forward": 1})
    wants = content(a, "/etc/systemd/system/multi-user.target.d/lab.conf")
    assert wants == "[Unit]\nWants=frr.service\nWants=nftables.service\n"
    assert content(a, "/etc/sysctl.d/50-lab.conf") == "net.ipv4.ip_forward = 1\n"


def test_private_keys_are_readable_by_root_only() -> None:
    modes = {file.path: file.mode for file in built()[0].files}
    assert modes["/etc/ssh/ssh_host_ed25519_key"] == 0o600
    assert modes["/root/.ssh/authorized_keys"] == 0o600


def test_a_machine_id_is_the_hosts_own_and_does_not_change() -> None:
    first, second = ([content(machine, "/etc/machine-id") for machine in built()] for _ in range(2))
    assert first == second
    assert len(set(first)) == 2


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(built(image="image-2"), id="image"),
        pytest.param(built(layer="layer-1"), id="layer"),
        pytest.param(built(services=["frr"]), id="services"),
        pytest.param(built(files={"a": [File("/etc/frr/frr.conf", "x")]}), id="files"),
    ],
)
def test_a_changed_definition_changes_the_digest(other: list[Machine]) -> None:
    assert other[0].digest != built()[0].digest


def test_a_host_keeps_its_digest_when_only_another_changes() -> None:
    assert built(services=["frr"], layer="layer-1")[1].digest == built()[1].digest


def test_a_layer_lies_over_the_image() -> None:
    assert built(layer="layer-1")[0].layers == (Path("layer-1"), Path("image-1"))


# --- steps


def test_a_complete_lab_needs_nothing() -> None:
    assert steps(built(), running(built())) == {}


def test_an_absent_lab_is_created() -> None:
    assert steps(built(), {}) == {"a": Step.CREATE, "b": Step.CREATE}


@pytest.mark.parametrize(
    ("difference", "step"),
    [
        ({"digest": "other"}, Step.CREATE),
        ({"digest": ""}, Step.CREATE),
        ({"digest": "", "state": State.STOPPED}, Step.CREATE),
        ({"state": State.STOPPED}, Step.START),
        ({"state": State.SILENT}, Step.START),
        ({"state": State.FROZEN}, Step.THAW),
        ({"network": frozenset()}, Step.CONNECT),
    ],
)
def test_one_host_that_differs_gets_the_step_it_needs(difference: dict[str, Any], step: Step) -> None:
    seen = running(built())
    seen["a"] = replace(seen["a"], **difference)
    assert steps(built(), seen) == {"a": step}


def test_more_network_than_expected_is_left_alone() -> None:
    seen = running(built())
    seen["a"] = replace(seen["a"], network=seen["a"].network | {"epg64400001 169.254.0.1/32"})
    assert steps(built(), seen) == {}


def test_a_host_that_is_not_wanted_any_more_goes_first() -> None:
    seen = {
        **running(built()),
        "old": Seen("x", State.RUNNING, frozenset()),
        "a": Seen("", State.STOPPED, frozenset()),
    }
    assert list(steps(built(), seen).items()) == [("old", Step.REMOVE), ("a", Step.CREATE)]


def test_a_power_cycle_starts_a_running_host_again() -> None:
    assert steps(built(), running(built()), ["b"]) == {"b": Step.START}


def test_the_diff_says_what_becomes_of_each_host() -> None:
    seen = {**running(built()), "old": Seen("x", State.STOPPED, frozenset())}
    seen["b"] = replace(seen["b"], state=State.FROZEN)
    todo = {"old": Step.REMOVE, "a": Step.CREATE, "b": Step.THAW}
    assert describe(built(), seen, todo) == {
        "before": "a: running\nb: frozen\nold: stopped\n",
        "after": "a: running (new disk)\nb: running\n",
    }


# --- commands


def test_the_kernels_answer_of_a_complete_network_is_what_is_expected() -> None:
    a = topology().hosts[0]
    addresses = {"lo": "127.0.0.1/8", "mgmt": "10.9.0.2/24", "up0": "172.30.1.1/24"}
    links = [
        {
            "ifname": name,
            "flags": ["BROADCAST", "UP"],
            "addr_info": [{"local": text.split("/")[0], "prefixlen": int(text.split("/")[1])}],
        }
        for name, text in addresses.items()
    ]
    seen = seen_network(links, [{"dst": "default", "gateway": "172.30.1.2", "dev": "up0"}])
    assert seen - expected_network(a) == {"lo 127.0.0.1/8"}
    assert expected_network(a) <= seen


def test_a_link_that_is_down_is_not_up() -> None:
    assert seen_network([{"ifname": "up0", "flags": ["BROADCAST"]}], []) == frozenset()


def test_networks_are_built_by_these_commands() -> None:
    lab = topology()
    a_up0, b_link, b_mgmt = (hardware_address(*end) for end in (("a", "up0"), ("b", "to-a"), ("b", "mgmt")))
    assert port_commands(NAMES, lab, ["b"]) == [
        "address replace 10.9.0.1/24 dev lab-mgmt",
        "link set lab-mgmt up",
        "neighbour flush dev lab-mgmt",
        f"link add lab-b up master lab-mgmt type veth peer name mgmt address {b_mgmt} netns lab-b",
    ]
    assert link_command(NAMES, lab.links[0]) == (
        f"link add up0 address {a_up0} type veth peer name to-a address {b_link} netns lab-b"
    )
    assert network_commands(lab.hosts[0]) == [
        "link set lo up",
        "address replace 10.9.0.2/24 brd + dev mgmt",
        "link set mgmt up",
        "address replace 172.30.1.1/24 brd + dev up0",
        "link set up0 up",
        "route replace default via 172.30.1.2",
    ]


def test_interfaces_keep_a_local_hardware_address_of_their_own() -> None:
    ends = [("a", "up0"), ("a", "mgmt"), ("b", "up0")]
    assert len({hardware_address(*end) for end in ends}) == len(ends)
    assert re.fullmatch("02(:[0-9a-f]{2}){5}", hardware_address("a", "up0"))
    assert hardware_address("a", "up0") == hardware_address("a", "up0")


def test_a_supervisor_enters_its_groups_and_starts_the_machine_again_only_at_a_reboot() -> None:
    script = supervisor_script(NAMES, "a", ["/sys/fs/cgroup/unified/epic-lab/a"]).splitlines()
    assert script[0] == "echo $$ > /sys/fs/cgroup/unified/epic-lab/a/cgroup.procs"
    assert "--network-namespace-path=/run/netns/lab-a" in script[-1]
    assert "--directory=/run/epic-lab/hosts/a/root" in script[-1]
    assert script[-1].endswith("; [ $? -eq 133 ] || break; done")


def test_the_ssh_client_finds_hosts_by_name_and_address_and_knows_their_keys() -> None:
    config = ssh_config(topology(), "/keys")
    assert "Host a\n  HostName 10.9.0.2\n" in config
    assert "Host a 10.9.0.2 b 10.9.0.3\n  User root\n  IdentityFile /keys/id_ed25519\n" in config
    assert known_hosts(topology(), KEYS) == "a,10.9.0.2 ssh-ed25519 a\nb,10.9.0.3 ssh-ed25519 b\n"
