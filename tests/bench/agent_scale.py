# SPDX-License-Identifier: Apache-2.0
"""What an agent costs that holds 10,000 tunnels and 100,000 endpoints: memory, and time while it is idle.

Each role runs as its own process with the real programs, in a network namespace; what it holds comes from its
state directory, and neither control plane nor far ends answer. Needs root and `make bpf`.

`agent_scale.py [TUNNELS ENDPOINTS [ROLE...]]`
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import yaml
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from google.protobuf.json_format import ParseDict

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / f"tests/{room}") for room in ("integration/agent", "integration")]

from agent_control import write_certificates  # noqa: E402
from agent_namespaces import Namespace  # noqa: E402
from agent_workload import MANIFESTS  # noqa: E402

import epic.bpf  # noqa: E402
from epic.ads.snapshot import CLUSTER, ENDPOINT, INSTANCE, LOAD_ASSIGNMENT, TUNNEL, Snapshot, versioned  # noqa: E402
from epic.agent.runtime import store  # noqa: E402
from epic.agent.workload import plan  # noqa: E402
from epic.agent.workload import storage as workload_storage  # noqa: E402
from epic.bpf.dataplane import Dataplane  # noqa: E402
from epic.ipam.networks import DEFAULT_POOLS, inside6  # noqa: E402
from epic.model.values.naming import instance_interface  # noqa: E402
from epic.proto import epic_pb2  # noqa: E402

GATEWAYS = 10
LABEL = "https://127.0.0.1:8443/shop/lab"
_INSIDES = int(IPv4Address("100.64.0.0"))
_ENDPOINTS = int(IPv4Address("10.0.0.0"))
_IDLE_SECONDS = 30.0


def inside(number: int) -> IPv4Address:
    """The inside address of a gateway, or of a tunnel at its workload end."""
    return IPv4Address(_INSIDES + number + 1)


def endpoint(number: int) -> str:
    """The address of an endpoint."""
    return str(IPv4Address(_ENDPOINTS + number))


def gateway_state(tunnel_count: int, endpoint_count: int) -> Snapshot:
    """What the control plane sent: a few gateways with many tunnels each, and endpoints behind each."""
    instances = {f"shop.g{g}": _instance(g) for g in range(GATEWAYS)}
    tunnel_messages = {str(t + 1): _tunnel(t) for t in range(tunnel_count)}
    endpoints = {
        f"shop.g{e % tunnel_count % GATEWAYS}/{endpoint(e)}": _endpoint(e, e % tunnel_count)
        for e in range(endpoint_count)
    }
    clusters, assignments = {}, {}
    for gateway in range(GATEWAYS):
        members = [endpoint(e) for e in range(endpoint_count) if e % tunnel_count % GATEWAYS == gateway]
        for part, start in enumerate(range(0, len(members), 100)):
            name = f"shop.g{gateway}/service{part}"
            clusters[name] = versioned(_cluster(f"service{part}"))
            assignments[name] = versioned(assignment(f"service{part}", members[start : start + 100]))
    return {
        INSTANCE: {name: versioned(message) for name, message in instances.items()},
        TUNNEL: {name: versioned(message) for name, message in tunnel_messages.items()},
        ENDPOINT: {name: versioned(message) for name, message in endpoints.items()},
        CLUSTER: clusters,
        LOAD_ASSIGNMENT: assignments,
    }


def _instance(number: int) -> epic_pb2.Instance:
    return epic_pb2.Instance(
        gateway=f"shop.g{number}",
        account="shop",
        service=number + 1,
        public_addresses=[f"203.0.113.{number + 1}"],
        inside_address=str(inside(number)),
        inside_address6=str(inside6(DEFAULT_POOLS.inside6, inside(number))),
        interface=instance_interface(f"shop.g{number}", inside(number)),
    )


def _tunnel(number: int) -> epic_pb2.Tunnel:
    gateway = number % GATEWAYS
    return epic_pb2.Tunnel(
        id=number + 1,
        gateway=f"shop.g{gateway}",
        service=gateway + 1,
        inside_address=str(inside(gateway)),
        inside_address6=str(inside6(DEFAULT_POOLS.inside6, inside(gateway))),
        declared_address=str(IPv4Address(int(IPv4Address("172.16.0.1")) + number)),
        keys=[epic_pb2.Key(epoch=1, secret=number.to_bytes(16, "big"))],
        signing_epoch=1,
    )


def _endpoint(number: int, tunnel: int) -> epic_pb2.Endpoint:
    return epic_pb2.Endpoint(
        gateway=f"shop.g{tunnel % GATEWAYS}",
        inside_address=str(inside(tunnel % GATEWAYS)),
        address=endpoint(number),
        tunnel=tunnel + 1,
    )


def _cluster(name: str) -> cluster_pb2.Cluster:
    data = {"name": name, "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}}
    message: cluster_pb2.Cluster = ParseDict(data, cluster_pb2.Cluster())
    return message


def assignment(name: str, members: list[str]) -> endpoint_pb2.ClusterLoadAssignment:
    """A service's endpoints, for Envoy."""
    hosts = [
        {"endpoint": {"address": {"socket_address": {"address": a, "port_value": 8080}}}} for a in members
    ]
    data = {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]}
    message: endpoint_pb2.ClusterLoadAssignment = ParseDict(data, endpoint_pb2.ClusterLoadAssignment())
    return message


def workload_list(tunnel_count: int, endpoint_count: int) -> list[dict[str, object]]:
    """What a server lists."""
    return [
        {
            "id": t + 1,
            "gateway": f"shop.g{t}",
            "service": t + 1,
            "inside-address": str(inside(t)),
            "inside-address6": str(inside6(DEFAULT_POOLS.inside6, inside(t))),
            "epic-address": "172.30.11.2",
            "epic-port": 6080,
            "keys": [{"epoch": 1, "secret": t.to_bytes(16, "big").hex()}],
            "signing-epoch": 1,
            "endpoints": [endpoint(e) for e in range(t, endpoint_count, tunnel_count)],
        }
        for t in range(tunnel_count)
    ]


class Agent:
    """An agent's process."""

    def __init__(self, directory: Path, settings: dict[str, object], pins: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.state.mkdir(parents=True)
        self.pins = pins / directory.name
        self.namespace = Namespace()
        self._path = directory / "agent.yaml"
        common = {
            "node_name": "bench",
            "underlay": {"interface": "up0"},
            "state_directory": str(self.state),
            "run_directory": str(directory / "run"),
            "pin_directory": str(self.pins),
            "metrics": {"port": 0},
        }
        self._path.write_text(yaml.safe_dump(common | settings), encoding="utf-8")
        self.namespace.run(
            "ip link add up0 type veth peer name up1",
            "ip link set up0 up",
            "ip link set up1 up",
            "ip addr add 172.30.11.9/24 dev up0",
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start it."""
        command = [sys.executable, "-c", "from epic.agent.main import main; main()", "--config", self._path]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        with self.namespace:
            return subprocess.Popen([*command, "--log-level", "ERROR", *arguments], env=environment)

    def measure(self, tunnel_count: int, endpoint_count: int) -> dict[str, float]:
        """Start it, wait until it has programmed everything, and watch it do nothing."""
        begun, process = time.monotonic(), self.start()
        try:
            _wait(lambda: _cache(self.pins) == (tunnel_count, endpoint_count), 120)
            programmed = time.monotonic() - begun
            time.sleep(10)
            before = _cpu_seconds(process.pid)
            time.sleep(_IDLE_SECONDS)
            used = _cpu_seconds(process.pid) - before
            memory = _status(process.pid)
            return {"programmed": programmed, "cpu": used / _IDLE_SECONDS} | memory
        finally:
            process.terminate()
            process.wait(30)
            self.start("--cleanup").wait(120)
            self.namespace.close()


def gateway(directory: Path, pins: Path, tunnel_count: int, endpoint_count: int) -> dict[str, float]:
    """The EPIC node."""
    directory.mkdir()
    write_certificates(directory)
    agent = Agent(
        directory, {"role": "gateway", "control": {"address": "127.0.0.1:1", "pki": str(directory)}}, pins
    )
    (directory / "run").mkdir()
    rows = {
        (url, name): (resource.version, resource.body.value)
        for url, group in gateway_state(tunnel_count, endpoint_count).items()
        for name, resource in group.items()
    }
    store.write(agent.state, rows)
    for number in range(GATEWAYS):
        name = instance_interface(f"shop.g{number}", inside(number))
        agent.namespace.run(f"ip link add {name} type veth peer name i{number}", f"ip link set {name} up")
    return agent.measure(tunnel_count, endpoint_count)


def workload(directory: Path, pins: Path, tunnel_count: int, endpoint_count: int) -> dict[str, float]:
    """The workload node."""
    directory.mkdir()
    manifests = directory / "manifests"
    manifests.mkdir()
    (manifests / "epic.yaml").write_text(MANIFESTS, encoding="utf-8")
    agent = Agent(directory, {"role": "workload", "cluster": "lab", "manifests": str(manifests)}, pins)
    listed = {
        str(document["id"]): workload_storage.Versioned("", plan.read(document))
        for document in workload_list(tunnel_count, endpoint_count)
    }
    rows = {**workload_storage.rows(LABEL, listed), **workload_storage.list_row(LABEL, 0)}
    store.write(agent.state, rows)
    return agent.measure(tunnel_count, endpoint_count)


def _cache(pins: Path) -> tuple[int, int]:
    plane = Dataplane(pins, Path(epic.bpf.__file__).with_name("gue.bpf.o"))
    try:
        return len(plane.tunnel_ids()), len(plane.endpoints())
    except OSError:
        return 0, 0


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"the agent has not programmed everything within {seconds:.0f} s")
        time.sleep(0.5)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int) -> dict[str, float]:
    """MB, now and at most."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return {"rss": int(values["VmRSS"]) / 1024, "peak": int(values["VmHWM"]) / 1024}


@contextmanager
def bpffs(directory: Path) -> Iterator[Path]:
    """Such a file system there."""
    directory.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def main() -> None:
    """Measure both roles."""
    counts = [int(text) for text in sys.argv[1:3]] or [10_000, 100_000]
    roles = sys.argv[3:] or ["gateway", "workload"]
    print(f"{counts[0]:,} tunnels, {counts[1]:,} endpoints; nothing happens for {_IDLE_SECONDS:.0f} s")
    with tempfile.TemporaryDirectory() as name, bpffs(Path(name) / "bpffs") as pins:
        for role, run in (("gateway", gateway), ("workload", workload)):
            if role in roles:
                found = run(Path(name) / role, pins, *counts)
                print(
                    f"  {role:8} RSS {found['rss']:.0f} MB (at most {found['peak']:.0f}), "
                    f"{found['cpu'] * 100:.1f} % of a core, ready after {found['programmed']:.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
