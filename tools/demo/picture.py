# SPDX-License-Identifier: Apache-2.0
"""What the demo shows at its end. Pure: data in, rich renderables out."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from load import Reply
from rich import box
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from lab import Topology


@dataclass(frozen=True)
class Tunnel:
    """A tunnel and the packets through it, as its EPIC node counts them (None: not known)."""

    id: int
    epic_node: str
    workload_node: str
    received: int | None = None
    sent: int | None = None


@dataclass(frozen=True)
class Shown:
    """All that the last screen tells."""

    topology: Topology
    proxy: dict[str, Any]
    tunnels: Sequence[Tunnel]
    replies: Sequence[Reply]
    first: float
    backends: Sequence[str]

    @property
    def address(self) -> str:
        """The gateway's address."""
        return str(self.proxy["spec"]["public-address"])

    @property
    def nodes(self) -> dict[str, str]:
        """EPIC nodes of the gateway by inside address."""
        return {i["inside-address"]: i["node"] for i in self.proxy["status"]["instances"]}


def topology(shown: Shown) -> Tree:
    """The network from the client on, with what is where."""
    notes: dict[str, list[str]] = defaultdict(list)
    for inside, node in shown.nodes.items():
        notes[node] += [f"[cyan]Envoy {inside}[/]", f"announces [bold]{shown.address}[/]"]
    for node in {tunnel.workload_node for tunnel in shown.tunnels}:
        ends = [f"{t.id} to {t.epic_node}" for t in shown.tunnels if t.workload_node == node]
        notes[node].append(f"[magenta]tunnels {', '.join(ends)}[/]")
    for backend in shown.backends:
        notes[backend].insert(0, "[green]backend :8080[/]")
    root = Tree(_host(shown.topology, "client", shown.topology.address("client"), notes), guide_style="bold")
    _grow(root, "client", shown.topology, notes, {"client"})
    return root


def _grow(tree: Tree, host: str, topology_: Topology, notes: Mapping[str, list[str]], seen: set[str]) -> None:
    for neighbour, _, address in topology_.links.get(host, []):
        if neighbour not in seen:
            seen.add(neighbour)
            branch = tree.add(_host(topology_, neighbour, address, notes))
            _grow(branch, neighbour, topology_, notes, seen)


def _host(topology_: Topology, host: str, address: str, notes: Mapping[str, list[str]]) -> Text:
    purpose = "" if notes.get(host) else topology_.hosts[host].get("purpose", "").split(".")[0]
    parts = [f"[bold]{host}[/] {address}", *notes.get(host, []), *([f"[dim]{purpose}[/]"] if purpose else [])]
    return Text.from_markup("  ".join(parts))


def gateway(shown: Shown) -> Table:
    """The gateway's names and how fast it was there."""
    table = Table.grid(padding=(0, 2))
    endpoints = shown.proxy["spec"].get("endpoints") or []
    ports = ", ".join(f"{p['protocol']} {p['port']}" for p in shown.proxy["spec"]["public-ports"])
    table.add_row("Address", f"[bold green]{shown.address}[/] ({ports})")
    table.add_row("DNS name", ", ".join(e["dnsName"] for e in endpoints) or "-")
    table.add_row("Name on EPIC", shown.proxy["metadata"]["name"])
    table.add_row("From POST to the first 200", f"[bold green]{shown.first:.2f} s[/]")
    return table


def requests(shown: Shown) -> Table:
    """Which way the requests went."""
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{len(shown.replies)} requests from client", title_justify="left"
    )
    for title in ("Status", "Envoy on", "Backend", "Requests", "Median", "95 %"):
        table.add_column(title, justify="right" if title in {"Requests", "Median", "95 %"} else "left")
    grouped: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for reply in shown.replies:
        status = str(reply.status) if reply.status else f"none: {reply.text}"
        grouped[status, shown.nodes.get(reply.inside, "-"), reply.backend or "-"].append(reply.took)
    for (status, node, backend), took in sorted(grouped.items()):
        style = "green" if status == "200" else "red"
        table.add_row(Text(status, style=style), node, backend, str(len(took)), *_latency(took))
    return table


def _latency(took: Iterable[float]) -> tuple[str, str]:
    ordered = sorted(took)
    late = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return f"{statistics.median(ordered) * 1000:.1f} ms", f"{late * 1000:.1f} ms"


def tunnels(shown: Shown) -> Table:
    """What went through the tunnels."""
    table = Table(box=box.SIMPLE_HEAD, title="Tunnels, counted on the EPIC nodes", title_justify="left")
    for title in ("Tunnel", "EPIC node", "Workload node", "Packets sent", "Packets received"):
        table.add_column(title, justify="right" if title.startswith("Packets") else "left")
    for tunnel in shown.tunnels:
        counts = ("-" if n is None else str(n) for n in (tunnel.sent, tunnel.received))
        table.add_row(str(tunnel.id), tunnel.epic_node, tunnel.workload_node, *counts)
    return table
