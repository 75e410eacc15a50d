# SPDX-License-Identifier: Apache-2.0
"""A node's BIRD as the role router configures it, and an upstream router's, on one network."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
from pathlib import Path
from typing import Any

import yaml
from agent_namespaces import Namespace
from ansible.plugins.filter.core import to_bool
from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROOT = Path(__file__).parents[3]
NODE, UPSTREAM = "172.30.11.2", "172.30.11.1"
NODE6, UPSTREAM6 = "fd00:11::2", "fd00:11::1"
GATEWAY, OUTSIDE_POOL, GATEWAY6 = "203.0.113.7", "198.51.100.7", "2001:db8:7::1"
NODE_AS, UPSTREAM_AS = 4200000003, 64512


def filters() -> dict[str, Any]:
    """The collection's filters."""
    found: dict[str, Any] = {}
    for name in ("networks", "bird"):
        spec = importlib.util.spec_from_file_location(f"epic_{name}", ROOT / f"plugins/filter/{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found |= {f"epic.gateway.{key}": value for key, value in module.FilterModule().filters().items()}
    return found


def configuration(neighbor: dict[str, Any], **variables: Any) -> str:
    """/etc/bird/bird.conf of a node with that neighbour, and `variables` instead of the role's defaults."""
    environment = Environment(
        loader=FileSystemLoader(ROOT / "roles/router/templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 it makes no HTML
    )
    environment.filters |= filters()
    environment.filters["bool"] = to_bool
    environment.filters["regex_replace"] = lambda text, _, end: text + end
    defaults = yaml.safe_load((ROOT / "roles/router/defaults/main.yml").read_text())
    source = NODE6 if ":" in neighbor["address"] else NODE
    values = defaults | {"router_id": NODE, "router_source_address": source, "router_as": NODE_AS}
    values |= {"router_bfd": False, "router_neighbors": [{"as": UPSTREAM_AS} | neighbor]} | variables
    return environment.get_template("bird.conf.j2").render(values)


def upstream_configuration(address: str, options: str = "") -> str:
    over6 = ":" in address
    return f"""
router id {UPSTREAM};
protocol device {{ }}
protocol bgp node {{
  local {UPSTREAM6 if over6 else UPSTREAM} as {UPSTREAM_AS};
  neighbor {address} as {NODE_AS};
  connect delay time 1;
  error wait time 1, 2;
  {options}
  ipv4 {{ import all; export none; {"extended next hop on;" if over6 else ""} }};
  {"ipv6 { import all; export none; };" if over6 else ""}
}}
"""


class Bird:
    """A BIRD in a namespace."""

    def __init__(self, namespace: Namespace, directory: Path, text: str) -> None:
        directory.mkdir()
        self.control = directory / "bird.ctl"
        conf = directory / "bird.conf"
        conf.write_text(text, encoding="utf-8")
        subprocess.run(["bird", "-p", "-c", conf], check=True)
        self._namespace = namespace
        self._command = ["bird", "-f", "-c", conf, "-s", self.control, "-P", directory / "pid"]
        self.start()

    def start(self) -> None:
        with self._namespace:
            self.process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)

    def ask(self, command: str) -> str:
        done = subprocess.run(
            ["birdc", "-s", self.control, *command.split()], capture_output=True, text=True, check=False
        )
        return done.stdout

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(10)


class Site:
    """A node and an upstream router on one network."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.node, self.upstream = Namespace(), Namespace()
        self.birds: list[Bird] = []
        self.node.veth("up0", self.upstream, "up0")
        for namespace, address, address6 in ((self.node, NODE, NODE6), (self.upstream, UPSTREAM, UPSTREAM6)):
            namespace.run(
                f"ip address add {address}/24 dev up0", f"ip address add {address6}/64 dev up0 nodad"
            )
        self.node.run(
            f"ip route add blackhole {GATEWAY}/32 proto 50",
            f"ip route add blackhole {OUTSIDE_POOL}/32 proto 50",
            f"ip -6 route add blackhole {GATEWAY6}/128 proto 50",
            # none of these is a flag route
            "ip route add blackhole 203.0.113.8/32 proto static",
            f"ip route add 203.0.113.9/32 via {UPSTREAM} proto 50",
            "ip route add blackhole 203.0.113.128/25 proto 50",
            "ip -6 route add blackhole 2001:db8:7::8/128 proto static",
            "ip -6 route add blackhole 2001:db8:8::/64 proto 50",
        )

    def start(self, node: str, upstream: str) -> Bird:
        """Start both; the upstream's."""
        made = Bird(self.upstream, self.directory / "upstream", upstream)
        self.birds += [made, Bird(self.node, self.directory / "node", node)]
        return made

    def close(self) -> None:
        for bird in self.birds:
            bird.stop(signal.SIGKILL)
        self.node.close()
        self.upstream.close()
