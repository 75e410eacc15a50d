# SPDX-License-Identifier: Apache-2.0
"""What a host must be before EPIC comes to it: each fault is told with what would be right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.epic.gateway.plugins.module_utils._preflight import (
    Facts,
    Port,
    Wanted,
    faults,
    interface_mtus,
    read_facts,
    version,
)

TUNNELS = Port("udp", 6080, "epic-agent.service")
API = Port("tcp", 8443, "epic-control.service")
WANTED = Wanted(
    distributions={"debian": ["12"]},
    python="/usr/bin/python3",
    python_version="3.11 x86_64",
    kernel=(5, 15),
    tunnels=True,
    interfaces={"up0": 1500},
    ports=(TUNNELS, API),
    space={"/opt": 500},
)
FIT = Facts(
    distribution=("debian", "12"),
    kernel="6.1.0-18-amd64",
    has_systemd=True,
    has_package_bindings=True,
    lacking=(),
    python="3.11 x86_64",
    mtus={"up0": 1500, "lo": 65536},
    users={},
    free={"/opt": 500},
)


def test_a_fit_host_has_no_fault() -> None:
    assert faults(WANTED, FIT) == []


@pytest.mark.parametrize(
    ("difference", "complaint"),
    [
        ({"distribution": ("ubuntu", "24.04")}, "ubuntu 24.04; it must be debian 12, or, where you know"),
        ({"distribution": ("debian", "11")}, "the distribution is debian 11; it must be debian 12"),
        ({"has_systemd": False}, "systemd is not what started the host"),
        ({"has_package_bindings": False}, "install python3-apt"),
        ({"python": "3.12 x86_64"}, "/usr/bin/python3 is 3.12 x86_64, and the bundle is for 3.11 x86_64"),
        ({"python": ""}, "/usr/bin/python3 is missing, and the bundle is for 3.11 x86_64; set base_python"),
        ({"kernel": "5.10.0-28-amd64"}, "the kernel is 5.10.0-28-amd64; it must be 5.15 or newer"),
        ({"lacking": ("IPv6 is off",)}, "IPv6 is off"),
        ({"mtus": {"eth0": 1500}}, "there is no underlay interface up0; interfaces are eth0"),
        ({"mtus": {"up0": 1450}}, "the MTU of up0 is 1450; make it 1500 or gateway_node_underlay_mtu less"),
        ({"users": {API: "nginx"}}, "TCP port 8443 is in use by nginx; epic-control.service needs it"),
        ({"free": {"/opt": 20}}, "/opt has 20 MiB free; 500 are needed"),
    ],
)
def test_a_fault_is_told_with_what_would_be_right(difference: dict[str, object], complaint: str) -> None:
    (told,) = faults(WANTED, replace(FIT, **difference))  # type: ignore[arg-type]
    assert complaint in told


def test_all_faults_are_told_at_once() -> None:
    broken = replace(FIT, distribution=("fedora", "40"), kernel="4.19.0", mtus={}, free={"/opt": 0})
    assert len(faults(WANTED, broken)) == 4


def test_what_is_not_asked_for_is_no_fault() -> None:
    broken = replace(FIT, distribution=("fedora", "40"), kernel="4.19.0", lacking=("BPF",), python="2.7")
    assert faults(Wanted(), broken) == []


def test_the_first_numbers_of_a_release_are_its_version() -> None:
    assert version("6.1.0-18-amd64") == (6, 1, 0)
    assert version("5.15+deb") == (5, 15)
    assert version("") == ()


def host(root: Path) -> Path:
    """A host's files, as the kernel and the distribution give them."""
    files = {
        "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        "proc/sys/kernel/osrelease": "6.1.0-18-amd64\n",
        "proc/filesystems": "nodev\tproc\nnodev\tbpf\n",
        "sys/kernel/btf/vmlinux": "",
        "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
        "usr/bin/dpkg": "",
        "proc/net/udp": "  sl  local_address\n"
        "   1: 00000000:17C0 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4711 2 0 0\n",
        "proc/net/tcp6": "  sl  local_address\n"
        "   0: 00000000000000000000000000000000:20FB 00000000000000000000000000000000:0000 0A "
        "00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n",
        "proc/net/tcp": "  sl  local_address\n"
        "   0: 0100007F:20FB 0100007F:9C40 01 00000000:00000000 00:00000000 00000000 0 0 9 1 0 20\n",
        "proc/10/comm": "epic-agent\n",
        "proc/10/cgroup": "0::/system.slice/epic-agent.service\n",
        "proc/11/comm": "nginx\n",
        "proc/11/cgroup": "0::/system.slice/nginx.service\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for process, socket in (("10", "4711"), ("11", "4712")):
        (root / "proc" / process / "fd").mkdir()
        (root / "proc" / process / "fd/3").symlink_to(f"socket:[{socket}]")
    for name in ("proc/sys/net/ipv6", "run/systemd/system", "usr/lib/python3/dist-packages/apt_pkg", "opt"):
        (root / name).mkdir(parents=True)
    return root


def test_the_facts_of_a_fit_host_are_read(tmp_path: Path) -> None:
    wanted = replace(WANTED, ports=(TUNNELS,), space={"/opt/epic": 1})
    facts = read_facts(wanted, lambda _: "3.11 x86_64\n", {"up0": 1500}, host(tmp_path))
    assert facts == replace(FIT, mtus={"up0": 1500}, free=facts.free)
    assert facts.free["/opt/epic"] > 0, "of the file system that it will be in"
    assert faults(wanted, facts) == []


def test_a_port_that_somebody_else_listens_on_is_found_with_who_it_is(tmp_path: Path) -> None:
    facts = read_facts(WANTED, lambda _: "", {}, host(tmp_path))
    assert facts.users == {API: "nginx (process 11, nginx.service)"}


@pytest.mark.parametrize(
    ("gone", "complaint"),
    [
        ("sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"),
        ("proc/filesystems", "CONFIG_BPF_SYSCALL"),
        ("sys/fs/cgroup/cgroup.controllers", "systemd.unified_cgroup_hierarchy=1"),
    ],
)
def test_what_tunnels_need_of_the_kernel_and_is_not_there(gone: str, complaint: str, tmp_path: Path) -> None:
    root = host(tmp_path)
    (root / gone).unlink()
    (lacking,) = read_facts(WANTED, lambda _: "", {}, root).lacking
    assert complaint in lacking


def test_the_mtu_of_every_interface_is_known() -> None:
    assert interface_mtus()["lo"] > 1500
