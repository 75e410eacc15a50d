# SPDX-License-Identifier: Apache-2.0
"""Look at the lab, carry out a plan's steps, and remove the lab."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.epic.gateway.plugins.module_utils import _lab_system as system
from ansible_collections.epic.gateway.plugins.module_utils._lab_plan import (
    Keys,
    Machine,
    Names,
    Seen,
    State,
    Step,
    expected_network,
    known_hosts,
    link_command,
    network_commands,
    port_commands,
    ssh_config,
)
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
    ports = {port.removeprefix(f"{names.lab}-") for port in system.bridge_ports(names.bridge)}
    return disks | ports | system.cgroup_hosts(names)


def look(names: Names, topology: Topology) -> dict[str, Seen]:
    """All hosts as they are now."""
    addresses = {host.name: str(host.management.ip) for host in topology.hosts}
    return {host: _look_at(names, host, addresses.get(host)) for host in sorted(known(names))}


def _look_at(names: Names, host: str, address: str | None) -> Seen:
    digest = Path(names.directory(host)) / "digest"
    text = digest.read_text(encoding="ascii").strip() if digest.exists() else ""
    return Seen(text, _state(names, host, address), system.network_of(names.namespace(host)))


def _state(names: Names, host: str, address: str | None) -> State:
    if not system.has_processes(names, host):
        return State.STOPPED
    if system.is_frozen(names, host):
        return State.FROZEN
    greets = address is not None and system.answers(address, _PATIENCE)
    return State.RUNNING if greets else State.SILENT


def apply(names: Names, topology: Topology, image: Path, wanted: Iterable[Machine], steps: Mapping[str, Step]) -> None:
    """Carry out the steps; ends when every host answers, or with LabError."""
    machines = {machine.host.name: machine for machine in wanted}
    system.mount_runtime(names)
    halt(names, [host for host, step in steps.items() if step in (Step.REMOVE, Step.CREATE, Step.START)])
    for host, step in steps.items():
        if step in (Step.REMOVE, Step.CREATE):
            system.remove_disk(names, host)
        if step is Step.REMOVE:
            system.remove_cgroups(system.host_cgroups(names, host))
    for host in machines:
        system.add_namespace(names.namespace(host))
    for host, machine in machines.items():
        root = system.mount_disk(names, host, image)
        if steps.get(host) is Step.CREATE:
            system.write_files(root, machine.files)
    connect(names, topology)
    for host, step in steps.items():
        if step is Step.THAW:
            system.thaw(names, host)
    boot(names, [machines[host] for host, step in steps.items() if step in (Step.CREATE, Step.START)])


def halt(names: Names, hosts: list[str]) -> None:
    """End the hosts' processes and everything the kernel keeps for them, as a power cut does."""
    system.kill(names, hosts)
    for host in hosts:
        system.delete_link(names.namespace(host))
        system.delete_namespace(names.namespace(host))
        system.forget_machine(names, host)


def connect(names: Names, topology: Topology) -> None:
    """Make what the network lacks."""
    if not any(link["ifname"] == names.bridge for link in system.links()):
        system.batch([f"link add {names.bridge} type bridge"])
    seen = {host.name: system.network_of(names.namespace(host.name)) for host in topology.hosts}
    found = {host.name: {link["ifname"] for link in system.links(names.namespace(host.name))} for host in topology.hosts}
    ports = system.bridge_ports(names.bridge)
    missing = [host for host in found if names.namespace(host) not in ports]
    system.batch(port_commands(names, topology, missing))
    for link in topology.links:
        if link.left.interface not in found[link.left.host]:
            system.batch([link_command(names, link)], names.namespace(link.left.host))
    for host in topology.hosts:
        if not expected_network(host) <= seen[host.name]:
            system.batch(network_commands(host), names.namespace(host.name))


def boot(names: Names, machines: list[Machine]) -> None:
    """Start hosts at once and wait for all of them."""
    supervisors = [(machine, system.start(names, machine.host.name)) for machine in machines]
    for machine, supervisor in supervisors:
        name, address = machine.host.name, str(machine.host.management.ip)
        system.wait_for(lambda: supervisor.poll() is not None or system.answers(address, 0), _BOOT_SECONDS)
        if supervisor.poll() is not None or not system.answers(address, 0):
            raise system.LabError(_boot_error(names, name, supervisor))
        (Path(names.directory(name)) / "digest").write_text(machine.digest, encoding="ascii")


def _boot_error(names: Names, host: str, supervisor: subprocess.Popen) -> str:
    status = supervisor.poll()
    how = f"did not answer by SSH within {_BOOT_SECONDS} s" if status is None else f"ended with status {status}"
    log = f"{names.directory(host)}/console.log"
    return f"the host {host} {how}; the end of its console log {log}:\n{system.console_tail(names, host)}"


def make_keys(directory: Path, topology: Topology) -> dict[str, Keys]:
    """Keys that the lab's hosts and its operator use; made where they are missing, with the SSH client's settings."""
    hosts = directory / "hosts"
    hosts.mkdir(mode=0o700, parents=True, exist_ok=True)
    login = _key(directory / "id_ed25519", "epic-lab")
    pairs = {host.name: _key(hosts / host.name, host.name) for host in topology.hosts}
    keys = {name: Keys(private, public, login[1]) for name, (private, public) in pairs.items()}
    _write(directory / "known_hosts", known_hosts(topology, {name: key.host_public for name, key in keys.items()}))
    _write(directory / "config", ssh_config(topology, str(directory)))
    return keys


def read_keys(directory: Path, topology: Topology) -> dict[str, Keys]:
    """The keys as far as they exist, for a run that must change nothing."""
    paths = {host.name: directory / "hosts" / host.name for host in topology.hosts}
    login = _read(directory / "id_ed25519.pub")
    return {name: Keys(_read(path), _read(path.with_name(f"{name}.pub")), login) for name, path in paths.items()}


def _key(path: Path, comment: str) -> tuple[str, str]:
    public = path.with_name(f"{path.name}.pub")
    if not path.exists() or not public.exists():
        path.unlink(missing_ok=True)
        system.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])
    return _read(path), _read(public)


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii") if path.exists() else ""


def _write(path: Path, content: str) -> None:
    if _read(path) != content:
        path.write_text(content, encoding="ascii")


def leftovers(names: Names, ssh_directory: Path) -> list[str]:
    """What there is of the lab, for people."""
    bridge = [f"link {names.bridge}"] if any(link["ifname"] == names.bridge for link in system.links()) else []
    files = [str(path) for path in (Path(names.runtime), ssh_directory) if path.exists()]
    groups = [str(group) for group in system.lab_cgroups(names) if group.exists()]
    return [*(f"host {host}" for host in sorted(known(names))), *bridge, *groups, *files]


def remove(names: Names, ssh_directory: Path) -> None:
    """Remove everything of the lab, however much of it there is."""
    hosts = sorted(known(names))
    system.close_ssh(names)
    halt(names, hosts)
    system.delete_link(names.bridge)
    for host in hosts:
        system.unmount(Path(names.directory(host)) / "root")
    system.remove_cgroups(system.lab_cgroups(names))
    system.unmount(Path(names.runtime))
    for directory in (Path(names.runtime), ssh_directory):
        shutil.rmtree(directory, ignore_errors=True)
