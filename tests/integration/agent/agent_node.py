# SPDX-License-Identifier: Apache-2.0
"""An EPIC node in network namespaces: the agent, an instance with its Envoy, a client, a tunnel's far end."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType

import yaml
from agent_control import (
    GATEWAY,
    INSIDE,
    INSIDE6,
    INTERFACE,
    KEY,
    NODE,
    PUBLIC,
    PUBLIC6,
    TUNNEL_ID,
    Control,
    write_certificates,
)
from agent_namespaces import Namespace
from firewall_rules import firewall_rules

import epic.bpf
from epic.bpf.dataplane import Address, Dataplane, Endpoint
from epic.bpf.packets import wire

ROOT = Path(__file__).parents[3]
ENVOY = Path(sys.executable).with_name("envoy")
ADS_PORT = 18000
# The agent of this checkout, whichever one is installed.
AGENT_ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src")}
UNDERLAY, FAR = "172.30.11.2", "172.30.11.1"
UNDERLAY6, FAR6 = "fd00:11::2", "fd00:11::1"
CLIENTS6 = "2001:db8:20::"


def _instances() -> ModuleType:
    path = ROOT / "plugins/module_utils/_instances.py"
    spec = importlib.util.spec_from_file_location("epic_instances", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def plane(pins: Path) -> Dataplane:
    """What is pinned there. A new one each time: it remembers what it read, for nobody else should write."""
    return Dataplane(pins, Path(epic.bpf.__file__).with_name("gue.bpf.o"))


def endpoints_at(pins: Path) -> dict[tuple[Address, Address], Endpoint]:
    """The endpoints that are pinned there. Its descriptors go at once: who waits looks hundreds of times."""
    with closing(plane(pins)) as dataplane:
        return dataplane.endpoints()


def tunnel_ids_at(pins: Path) -> set[int]:
    """The ids of the tunnels that are pinned there; see `endpoints_at`."""
    with closing(plane(pins)) as dataplane:
        return dataplane.tunnel_ids()


async def eventually(condition: Callable[[], bool], within: float = 5.0, what: str = "it") -> float:
    """Wait until the condition holds; how long that took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < within, f"{what} did not come true within {within} s"
        await asyncio.sleep(0.005)
    return time.monotonic() - start


class Node:
    """One node and what is around it."""

    def __init__(self, directory: Path, bpffs: Path) -> None:
        self.directory = directory
        self.control = Control()
        self.pins = bpffs / directory.name
        self.run_directory = directory / "run"
        (self.run_directory / "gateways" / GATEWAY).mkdir(parents=True)
        self.node, self.instance, self.client, self.far = (Namespace() for _ in range(4))
        self._agent: subprocess.Popen[bytes] | None = None
        self._envoy: subprocess.Popen[bytes] | None = None
        self._wire()
        write_certificates(directory)
        self._config = directory / "agent.yaml"
        self._settings: dict[str, object] = {
            "role": "gateway",
            "node_name": NODE,
            "control": {
                "address": f"127.0.0.1:{ADS_PORT}",
                "pki": str(directory),
            },
            "underlay": {"interface": "up0", "address": UNDERLAY},
            "state_directory": str(directory / "state"),
            "run_directory": str(self.run_directory),
            "pin_directory": str(self.pins),
            "firewall": str(directory / "firewall.nft"),
        }
        self.configure()

    @property
    def xds_socket(self) -> Path:
        """Where the agent serves the gateway's Envoy."""
        return self.run_directory / "xds" / GATEWAY / "xds.sock"

    def configure(self, **settings: object) -> None:
        """Write the agent's settings, with these changes to what they were."""
        self._settings |= settings
        self._config.write_text(yaml.safe_dump(self._settings), encoding="utf-8")

    def _wire(self) -> None:
        self.node.sysctl("ip_forward", 1)
        self.node.sysctl("conf/all/rp_filter", 0)
        self.node.veth("up0", self.far, "up0")
        self.node.veth("cl0", self.client, "up0")
        self.node.run(f"ip addr add {UNDERLAY}/24 dev up0", "ip addr add 172.30.20.1/24 dev cl0")
        self.far.run(f"ip addr add {FAR}/24 dev up0", f"ip addr add {FAR6}/64 dev up0 nodad")
        self.node.run(f"ip addr add {UNDERLAY6}/64 dev up0 nodad", f"ip -6 route add default via {FAR6}")
        self.client.run("ip addr add 172.30.20.2/24 dev up0", "ip route add default via 172.30.20.1")
        self.load_firewall()
        self.node.run("ip rule add pref 100 lookup 200")

    def load_firewall(self) -> None:
        """What the unit epic-firewall does."""
        path = self.directory / "firewall.nft"
        path.write_text(firewall_rules(), encoding="utf-8")
        self.node.run(f"nft -f {path}")

    def hide_firewall(self) -> None:
        """The file of the rules is not there, until they are loaded again."""
        (self.directory / "firewall.nft").unlink()

    def has_port(self, port: int) -> bool:
        """Whether the firewall lets requests to the gateway's port pass."""
        try:
            return f"{PUBLIC} . tcp . {port}" in self.ports()
        except AssertionError:
            return False

    def add_ipv6(self) -> None:
        """The client has IPv6, and the node forwards it (gateway_node_forward_ipv6)."""
        self.node.sysctl("conf/all/forwarding", 1, "ipv6")
        self.node.run(f"ip addr add {CLIENTS6}1/64 dev cl0 nodad")
        self.client.run(
            f"ip addr add {CLIENTS6}2/64 dev up0 nodad", f"ip -6 route add default via {CLIENTS6}1"
        )

    def add_instance(self) -> None:
        """What the unit epic-netns@ does."""
        self.node.veth(INTERFACE, self.instance, "eth0")
        self.node.run(
            f"ip link set {INTERFACE} address 02:00:00:00:00:01",
            f"ip addr add 169.254.0.1/32 dev {INTERFACE}",
            f"ip route replace {PUBLIC}/32 dev {INTERFACE} proto 50 table 200",
            f"ip route replace {INSIDE}/32 dev {INTERFACE} proto 50 table 200",
        )
        self.instance.run(
            "ip link set eth0 address 02:00:00:00:00:02",
            f"ip addr replace {PUBLIC}/32 dev lo",
            f"ip addr replace {PUBLIC6}/128 dev lo",
            f"ip addr add {INSIDE}/32 dev eth0",
            "ip route add default via 169.254.0.1 dev eth0 onlink",
            "ip link set eth0 mtu 1432",
            f"ip addr add {INSIDE6}/128 dev eth0 nodad",
            "ip neighbour replace fe80::1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
            "ip route replace default via fe80::1 dev eth0",
        )

    def remove_instance(self) -> None:
        """What stopping the units does."""
        self.stop_envoy()
        self.node.run(f"ip link del {INTERFACE}")

    def start_agent(self, *arguments: str) -> None:
        """Start epic-agent as its unit does."""
        command = [sys.executable, "-c", "from epic.agent.main import main; main()", "--config", self._config]
        with self.node:
            self._agent = subprocess.Popen([*command, *arguments], env=AGENT_ENVIRONMENT)

    def stop_agent(self, *, crash: bool = False) -> None:
        """SIGTERM, or SIGKILL, and wait."""
        assert self._agent is not None
        self._agent.send_signal(signal.SIGKILL if crash else signal.SIGTERM)
        assert self._agent.wait(60) == (-signal.SIGKILL if crash else 0)
        self._agent = None

    def clean_up(self) -> None:
        """`epic-agent --cleanup`."""
        self.start_agent("--cleanup")
        assert self._agent is not None
        assert self._agent.wait(60) == 0
        self._agent = None

    def start_envoy(self) -> None:
        """Start the instance's Envoy with the bootstrap that playbook runs write."""
        module = _instances()
        instance = module.Instance(
            *(GATEWAY, "shop", f"epic-{GATEWAY}", str(PUBLIC), str(INSIDE), str(INSIDE6), INTERFACE),
            *(1432, "1.40.0", 1),
        )
        text = json.dumps(module.bootstrap(instance))
        # What the unit's bind mount does.
        text = text.replace("/run/epic/agent", str(self.xds_socket.parent))
        text = text.replace("/run/epic", str(self.run_directory))
        path = self.directory / "bootstrap.json"
        path.write_text(text, encoding="utf-8")
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        with self.instance:
            self._envoy = subprocess.Popen([ENVOY, "--config-path", path, *options])

    def stop_envoy(self) -> None:
        """SIGKILL."""
        if self._envoy is not None:
            self._envoy.kill()
            self._envoy.wait()
            self._envoy = None

    def freeze_envoy(self) -> None:
        """Envoy answers nothing."""
        assert self._envoy is not None
        self._envoy.send_signal(signal.SIGSTOP)

    def thaw_envoy(self) -> None:
        """Envoy goes on."""
        assert self._envoy is not None
        self._envoy.send_signal(signal.SIGCONT)

    async def start_control(self) -> None:
        await self.control.start(self.node, self.directory, ADS_PORT)

    def is_announced(self) -> bool:
        """Whether the flag route stands."""
        return f"blackhole {PUBLIC} proto 50" in self.node.run("ip route show table main")

    def is_announced6(self) -> bool:
        """The same of IPv6."""
        found = self.node.run("ip -6 route show table main proto 50")
        return f"blackhole {PUBLIC6} " in found

    def ports(self, table: str = "gateway_ports") -> str:
        """The set of open ports, as nft prints it."""
        return self.node.run(f"nft list set inet epic {table}")

    def filters(self) -> str:
        """The programs on the instance's interface."""
        if INTERFACE not in self.node.run("ip -o link"):
            return ""
        return self.node.run(f"tc filter show dev {INTERFACE} ingress")

    def udp(self, address: str, port: int) -> socket.socket:
        """A socket in the network namespace of the thread."""
        channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        channel.bind((address, port))
        channel.settimeout(3)
        return channel

    def get(self) -> str:
        """The body of the reply to a request from the client; empty when there is none."""
        return self._get(str(PUBLIC))

    def get6(self) -> str:
        """The same by IPv6."""
        return self._get(f"[{PUBLIC6}]")

    def _get(self, host: str) -> str:
        command = ["curl", "-sS", "--max-time", "2", "--globoff", f"http://{host}/"]
        with self.client:
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def headers(self) -> str:
        """The head of the reply to a request from the client, in lower case."""
        command = ["curl", "-sS", "--max-time", "2", "--head", "-X", "GET", f"http://{PUBLIC}/"]
        with self.client:
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.lower()

    def http2_trace(self) -> str:
        """What a client of HTTP/2 hears, in curl's words, that asks twice on one connection."""
        url = f"http://{PUBLIC}/"
        command = ["curl", "-sSv", "--max-time", "2", "--http2-prior-knowledge", url, url]
        with self.client:
            return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    def fail_health(self) -> None:
        """Have Envoy say that it drains."""
        admin = self.run_directory / "gateways" / GATEWAY / "admin.sock"
        command = ["curl", "-sS", "-X", "POST", "--unix-socket", admin, "http://envoy/healthcheck/fail"]
        subprocess.run(command, capture_output=True, check=True)

    def is_agent_alive(self) -> bool:
        """Whether it runs."""
        return self._agent is not None and self._agent.poll() is None

    async def close(self) -> None:
        self.stop_envoy()
        if self._agent is not None:
            self._agent.kill()
            self._agent.wait()
        await self.control.stop()
        self.clean_up()
        for namespace in (self.node, self.instance, self.client, self.far):
            namespace.close()


def say_hello(node: Node) -> wire.Control:
    """Exchange hellos from the far end of the underlay; the first one tells the generation."""
    ack = wire.Control(wire.Kind.HELLO_ACK, TUNNEL_ID, 0, 0)
    with node.far, node.udp(FAR, 6080) as channel:
        for counter in (4, 5):
            hello = wire.Control(wire.Kind.HELLO, TUNNEL_ID, counter, 77, generation=ack.generation)
            channel.sendto(wire.encode(hello, KEY), (UNDERLAY, 6080))
            ack = wire.decode(channel.recv(2048), KEY)
    return ack
