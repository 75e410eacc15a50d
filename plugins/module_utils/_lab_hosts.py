# SPDX-License-Identifier: Apache-2.0
"""Look at the lab, carry out a plan's steps, and remove the lab."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ansible_collections.epic.gateway.plugins.module_utils import _lab_cgroups as cgroups
from ansible_collections.epic.gateway.plugins.module_utils import _lab_machines as machines
from ansible_collections.epic.gateway.plugins.module_utils import _lab_network as network
from ansible_collections.epic.gateway.plugins.module_utils._lab_plan import (
    Machine,
    Names,
    Seen,
    State,
    Step,
    bridge_command,
    expected_network,
    link_command,
    network_commands,
    port_commands,
)
from ansible_collections.epic.gateway.plugins.module_utils._lab_shell import LabError, wait_for
from ansible_collections.epic.gateway.plugins.module_utils._lab_topology import Topology

# A loaded machine may take its time to greet; taking a host for dead would throw away its kernel state.
_PATIENCE = 10.0
_BOOT_SECONDS = 30


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Wait for another run on the same directory to end. Leaves no lock file."""
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def known(names: Names) -> set[str]:
    """Every host the lab has something of."""
    directory = Path(names.runtime) / "hosts"
    disks = {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()
    ports = {port.removeprefix(f"{names.lab}-") for port in network.bridge_ports(names.bridge)}
    return disks | ports | cgroups.cgroup_hosts(names)


def look(names: Names, topology: Topology) -> dict[str, Seen]:
    """All hosts as they are now."""
    addresses = {host.name: str(host.management.ip) for host in topology.hosts}
    return {host: _look_at(names, host, addresses.get(host)) for host in sorted(known(names))}


def _look_at(names: Names, host: str, address: str | None) -> Seen:
    digest = Path(names.directory(host)) / "digest"
    text = digest.read_text(encoding="ascii") if digest.exists() else ""
    return Seen(text, _state(names, host, address), network.network_of(names.namespace(host)))


def _state(names: Names, host: str, address: str | None) -> State:
    if not cgroups.has_processes(names, host):
        return State.STOPPED
    if cgroups.is_frozen(names, host):
        return State.FROZEN
    greets = address is not None and machines.answers(address, _PATIENCE)
    return State.RUNNING if greets else State.SILENT


def apply(names: Names, topology: Topology, wanted: Iterable[Machine], steps: Mapping[str, Step]) -> None:
    """Carry out the steps; ends when every host answers, or with LabError."""
    by_name = {machine.host.name: machine for machine in wanted}
    machines.mount_runtime(names)
    halt(names, [host for host, step in steps.items() if step in (Step.REMOVE, Step.CREATE, Step.START)])
    for host, step in steps.items():
        if step in (Step.REMOVE, Step.CREATE):
            machines.remove_disk(names, host)
            cgroups.remove_cgroups(cgroups.host_cgroups(names, host))
    for host, machine in by_name.items():
        root = machines.mount_disk(names, host, machine.layers)
        if steps.get(host) is Step.CREATE:
            machines.write_files(root, machine.files)
    connect(names, topology)
    for host in (host for host, step in steps.items() if step is Step.THAW):
        cgroups.thaw(names, host)
    boot(names, [by_name[host] for host, step in steps.items() if step in (Step.CREATE, Step.START)])


def halt(names: Names, hosts: list[str]) -> None:
    """End the hosts' processes and everything the kernel keeps for them, as a power cut does."""
    cgroups.kill(names, hosts)
    for host in hosts:
        network.delete_link(names.namespace(host))
        network.delete_namespace(names.namespace(host))
        machines.forget_machine(names, host)


def connect(names: Names, topology: Topology) -> None:
    """Make what the network lacks."""
    for host in topology.hosts:
        network.add_namespace(names.namespace(host.name))
    if not network.has_link(names.bridge):
        network.batch([bridge_command(names)])
    ports = network.bridge_ports(names.bridge)
    missing = [host.name for host in topology.hosts if names.namespace(host.name) not in ports]
    network.batch(port_commands(names, topology, missing))
    for link in topology.links:
        namespace = names.namespace(link.left.host)
        if not any(found["ifname"] == link.left.interface for found in network.links(namespace)):
            network.batch([link_command(names, link)], namespace)
    for host in topology.hosts:
        namespace = names.namespace(host.name)
        if not expected_network(host) <= network.network_of(namespace):
            network.batch(network_commands(host), namespace)


def boot(names: Names, wanted: list[Machine]) -> None:
    """Start hosts at once and wait for all of them."""
    for machine, supervisor in [(machine, machines.start(names, machine.host.name)) for machine in wanted]:
        host = machine.host.name
        settled = wait_for(partial(_settled, machine, supervisor), _BOOT_SECONDS)
        if not settled or supervisor.poll() is not None:
            raise LabError(_boot_error(names, host, supervisor))
        (Path(names.directory(host)) / "digest").write_text(machine.digest, encoding="ascii")


def _settled(machine: Machine, supervisor: subprocess.Popen[bytes]) -> bool:
    return supervisor.poll() is not None or machines.answers(str(machine.host.management.ip), 0)


def _boot_error(names: Names, host: str, supervisor: subprocess.Popen[bytes]) -> str:
    status = supervisor.poll()
    how = f"did not answer by SSH in {_BOOT_SECONDS} s" if status is None else f"ended with status {status}"
    log = f"{names.directory(host)}/console.log"
    return f"the host {host} {how}; the end of its console log {log}:\n{machines.console_tail(names, host)}"


def leftovers(names: Names, ssh_directory: Path) -> list[str]:
    """What there is of the lab, for people."""
    bridge = [f"link {names.bridge}"] if network.has_link(names.bridge) else []
    files = [str(path) for path in (Path(names.runtime), ssh_directory) if path.exists()]
    groups = [str(group) for group in cgroups.lab_cgroups(names) if group.exists()]
    return [*(f"host {host}" for host in sorted(known(names))), *bridge, *groups, *files]


def remove(names: Names, ssh_directory: Path) -> None:
    """Remove everything of the lab, however much of it there is."""
    hosts = sorted(known(names))
    machines.close_ssh(names)
    halt(names, hosts)
    network.delete_link(names.bridge)
    for host in hosts:
        machines.unmount(Path(names.directory(host)) / "root")
    machines.tidy_nspawn()
    cgroups.remove_cgroups(cgroups.lab_cgroups(names))
    machines.unmount(Path(names.runtime))
    for directory in (Path(names.runtime), ssh_directory):
        shutil.rmtree(directory, ignore_errors=True)
