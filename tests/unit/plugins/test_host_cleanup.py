# SPDX-License-Identifier: Apache-2.0
"""What is found of EPIC on a host, and in which order it goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.epic.gateway.plugins.module_utils._host_cleanup import (
    CleanupError,
    Host,
    find,
    remove,
)

OUTPUTS = {
    "systemctl list-units --all --plain --no-legend epic-*": (
        "epic-agent.service loaded active running EPIC agent\n"
        "epic-envoy@shop.web.service loaded active running EPIC gateway shop.web: Envoy\n"
        "epic-control.service loaded inactive dead EPIC control plane\n"
    ),
    "ip -4 rule show pref 100 lookup 200": "100:\tfrom all lookup 200\n",
    "ip -6 rule show pref 100 lookup 200": "100:\tfrom all lookup 200\n",
    "ip -json link show": '[{"ifname": "lo"}, {"ifname": "epg64400001abcd"}]',
    "nft list tables": "table inet filter\ntable inet epic\ntable inet epic_management\n",
    "ip -4 route show table all protocol 50": "blackhole 203.0.113.1 \n",
    "getent passwd epic": "epic:x:990:990::/:/usr/sbin/nologin\n",
    "getent group epic": "epic:x:990:\n",
    "getent group epic-envoy": "epic-envoy:x:991:\n",
}


class Machine:
    """A host in a directory, whose programs answer what they are told to, and what was run there."""

    def __init__(self, root: Path, outputs: dict[str, str]) -> None:
        self.outputs = outputs
        self.ran: list[str] = []
        self.failing: set[str] = set()
        self.host = Host(self.run, root)

    def run(self, command: list[str]) -> tuple[int, str, str]:
        line = " ".join(command)
        self.ran.append(line)
        if line in self.failing:
            return 1, "", "it did not want to"
        asked = command[0] == "getent" or {"show", "list", "list-units"} & set(command)
        return (0, self.outputs[line], "") if line in self.outputs else (2 if asked else 0, "", "")

    def changes(self) -> list[str]:
        questions = ("getent", " show", "nft list", "list-units")
        return [line for line in self.ran if not any(word in line for word in questions)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An EPIC node with a gateway, on a host that has files of others as well."""
    files = {
        "etc/epic/agent.yaml": "role: gateway\n",
        "opt/epic/bin/epic-agent": "",
        "etc/systemd/system/epic-agent.service": "# Managed by EPIC.\n",
        "etc/systemd/system/nftables.service.d/epic.conf": "# Managed by EPIC.\n",
        "etc/systemd/system/ssh.service.d/epic.conf": "# Managed by EPIC.\n",
        "etc/systemd/system/ssh.service.d/other.conf": "",
        "etc/systemd/system/sys-fs-bpf.mount": "# Managed by EPIC. systemd mounts it by itself\n",
        "etc/systemd/system/other.service": "",
        "etc/sysctl.d/60-epic.conf": "# Managed by EPIC.\n",
        "etc/sysctl.d/99-other.conf": "",
        "etc/tmpfiles.d/epic.conf": "# Managed by EPIC.\n",
        "etc/bird/bird.conf": "# Managed by EPIC.\nrouter id 192.0.2.1;\n",
        "run/netns/epic-shop.web": "",
        "run/netns/other": "",
        "root/.ssh/authorized_keys": "ssh-ed25519 AAA me\nrestrict,command=x ssh-ed25519 BBB epic-runs\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return Machine(tmp_path, dict(OUTPUTS))


def test_everything_of_epic_is_found_and_nothing_of_others(machine: Machine) -> None:
    assert find(machine.host).lines() == [
        "unit epic-agent.service",
        "unit epic-envoy@shop.web.service",
        "unit bird.service",
        "network namespace epic-shop.web",
        "link epg64400001abcd",
        "nftables table inet epic",
        "nftables table inet epic_management",
        "routing rule pref 100 lookup 200 of IPv4",
        "routing rule pref 100 lookup 200 of IPv6",
        "route blackhole 203.0.113.1",
        "key of the runs in /root/.ssh/authorized_keys",
        "user epic",
        "group epic",
        "group epic-envoy",
        "/etc/systemd/system/epic-agent.service",
        "/etc/systemd/system/nftables.service.d/epic.conf",
        "/etc/systemd/system/ssh.service.d/epic.conf",
        "/etc/sysctl.d/60-epic.conf",
        "/etc/tmpfiles.d/epic.conf",
        "/etc/epic",
        "/opt/epic",
        "/etc/systemd/system/sys-fs-bpf.mount",
        "/etc/bird/bird.conf",
    ]
    assert machine.changes() == []


def test_what_others_have_stays(machine: Machine) -> None:
    remove(machine.host, find(machine.host))
    left = {str(p.relative_to(machine.host.root)) for p in machine.host.root.rglob("*") if p.is_file()}
    assert left == {
        "etc/systemd/system/ssh.service.d/other.conf",
        "etc/systemd/system/other.service",
        "etc/sysctl.d/99-other.conf",
        "run/netns/epic-shop.web",  # removed by `ip netns delete`
        "run/netns/other",
        "root/.ssh/authorized_keys",
    }
    assert (machine.host.root / "root/.ssh/authorized_keys").read_text() == "ssh-ed25519 AAA me\n"
    assert not (machine.host.root / "etc/systemd/system/nftables.service.d").exists()
    assert (machine.host.root / "etc/tmpfiles.d").is_dir()


def test_gateways_are_withdrawn_before_what_serves_them_ends(machine: Machine) -> None:
    remove(machine.host, find(machine.host))
    assert machine.changes() == [
        "systemctl stop epic-agent.service",
        "/opt/epic/bin/epic-agent --config /etc/epic/agent.yaml --cleanup",
        "systemctl disable --now bird.service",
        "systemctl stop epic-agent.service epic-envoy@shop.web.service",
        "systemctl reset-failed epic-agent.service epic-envoy@shop.web.service",
        "ip netns delete epic-shop.web",
        "ip link delete epg64400001abcd",
        "nft delete table inet epic",
        "nft delete table inet epic_management",
        "ip -4 rule delete pref 100 lookup 200",
        "ip -6 rule delete pref 100 lookup 200",
        "ip -4 route flush table all protocol 50",
        "ip -6 route flush table all protocol 50",
        "userdel epic",
        "groupdel epic",
        "groupdel epic-envoy",
        "systemctl daemon-reload",
    ]


def test_a_host_without_epic_has_no_remains(tmp_path: Path) -> None:
    for name in ("etc/bird/bird.conf", "etc/systemd/system/sys-fs-bpf.mount"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("of somebody else\n")
    assert find(Machine(tmp_path, {}).host).lines() == []


def test_an_agent_that_cannot_clean_up_stops_nothing(machine: Machine) -> None:
    machine.failing = {"/opt/epic/bin/epic-agent --config /etc/epic/agent.yaml --cleanup"}
    (odd,) = remove(machine.host, find(machine.host))
    assert "it did not want to" in odd
    assert machine.changes()[-1] == "systemctl daemon-reload"


def test_a_step_that_the_host_refuses_is_named_and_what_a_second_attempt_needs_is_still_there(
    machine: Machine,
) -> None:
    machine.failing = {"nft delete table inet epic"}
    with pytest.raises(CleanupError, match="nft delete table inet epic: it did not want to"):
        remove(machine.host, find(machine.host))
    assert (machine.host.root / "opt/epic/bin/epic-agent").exists()
