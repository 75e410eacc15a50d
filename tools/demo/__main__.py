# SPDX-License-Identifier: Apache-2.0
"""Publish a gateway on the lab, send requests through it, and show where they went."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import picture
import steps
from load import Client, Reply, Target, since
from rich.console import Console, Group
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from epic.client import EpicClient
from epic.controller.desired import Desired
from lab import CONFIGURATION, StepFailed, read_topology, shown_ssh

HOSTNAME = "shop.example.net"
REQUESTS = 120
FIRST_SECONDS = 30.0

console = Console(highlight=False)


@contextmanager
def step(title: str) -> Iterator[Callable[[str], None]]:
    """Show that a step is under way, then that it is done; what it is called with becomes its result."""
    results: list[str] = []
    begin = time.monotonic()
    with console.status(f"{title} …"):
        yield results.append
    result = f": {results[-1]}" if results else ""
    console.print(f"[green]✓[/] {title}{result} [dim]({since(begin):.1f} s)[/]", soft_wrap=True)


def demo() -> picture.Shown:
    """All steps; what there is to show."""
    with step("Connect to the REST API") as say:
        client, login = steps.connect()
        say(client.server)
    with step("Create the account, address pool, template and user of examples/shop/platform.yaml"):
        steps.make_platform(client)
    with step("Run backends on the workload hosts (playbooks/demo.yml)"):
        steps.run_backends()
    with step("Wait for the hosts' agents to publish their backends") as say:
        backends = steps.wait_for_endpoints(client)
        say(", ".join(backends))
    wanted = steps.desired(login)
    with step("Remove the gateway of an earlier demo") as say:
        say("done" if steps.remove_old(client, wanted) else "there is none")
        steps.wait_for_runs(client)
    with Client() as requests:
        proxy, first = publish(client, wanted, requests)
        with step("Wait for all of its instances") as say:
            proxy = steps.wait_for_all_instances(client, wanted)
            steps.wait_for_next_hops(proxy)
            say(", ".join(i["node"] for i in proxy["status"]["instances"]))
        with step(f"Send {REQUESTS} requests from the host client") as say:
            replies = requests.many(target(proxy), REQUESTS)
            say(f"{sum(reply.status == 200 for reply in replies)} answered with 200")
    with step("Read the tunnels' counters"):
        tunnels = steps.read_tunnels(client, wanted)
    return picture.Shown(read_topology(), proxy, tunnels, replies, first, backends)


def publish(client: EpicClient, wanted: Desired, requests: Client) -> tuple[dict[str, Any], float]:
    """Create the gateway; how long it takes from the POST to the first answer through the router."""
    with step("Create the gateway of examples/shop/gateway.yaml and ask it until it answers") as say:
        begin = time.monotonic()
        proxy = steps.publish(client, wanted)
        reply = requests.first(target(proxy), FIRST_SECONDS)
        first = since(begin)
        if reply.status != 200:
            text = f"{target(proxy).address} does not answer with 200 within {FIRST_SECONDS:g} s"
            raise StepFailed(f"{text}; at last: {_text(reply)}", *steps.diagnosis(client, wanted))
        say(f"{target(proxy).address} answers after {first:.2f} s")
    return proxy, first


def target(proxy: dict[str, Any]) -> Target:
    """Where the demo's requests go."""
    return Target(proxy["spec"]["public-address"], proxy["spec"]["public-ports"][0]["port"], HOSTNAME)


def _text(reply: Reply) -> str:
    return f"{reply.status or 'no answer'} {reply.text.strip()[:200]}"


def show(shown: picture.Shown) -> None:
    """The last screen."""
    parts = Group(
        picture.topology(shown),
        Rule(style="dim"),
        picture.gateway(shown),
        "",
        picture.requests(shown),
        picture.tunnels(shown),
    )
    console.print()
    console.print(Panel(parts, title="EPIC: a gateway outside the clusters whose applications it publishes"))
    console.print("What to try next:", style="bold")
    for what, command in next_steps(shown):
        console.print(f"  [dim]# {what}[/]")
        console.print(Text(f"  {command}"), soft_wrap=True)


def next_steps(shown: picture.Shown) -> list[tuple[str, str]]:
    """Commands to copy, in the checkout's directory."""
    node = next(iter(shown.nodes.values()))
    epicctl = f".venv/bin/epicctl --config {CONFIGURATION}"
    unit = f"epic-envoy@{steps.ACCOUNT}.{shown.proxy['metadata']['name']}"
    return [
        ("a request by hand", shown_ssh("client", f"curl -s -H Host:{HOSTNAME} http://{shown.address}/")),
        ("how the cluster is", f"{epicctl} status"),
        ("the gateway as EPIC stores it", f"{epicctl} get gateways -o yaml"),
        ("both ways to it in the upstream router", shown_ssh("router", f"ip route show {shown.address}")),
        (
            "only the tunnel is seen before the NAT",
            shown_ssh("router", "timeout 10 tcpdump -ni nat udp port 6080"),
        ),
        (
            f"stop the Envoy on {node}: requests go on through the other",
            shown_ssh(node, f"systemctl kill -s KILL '{unit}'"),
        ),
        ("publish something of your own", "less examples/shop/gateway.yaml"),
        ("take the lab away", "make clean-lab"),
    ]


def main() -> int:
    """Run the demo; the exit status."""
    try:
        shown = demo()
        show(shown)
    except StepFailed as error:
        console.print(f"[bold red]✗[/] {error}", markup=True)
        console.print("Look at:", style="bold")
        for command in error.look_at:
            console.print(Text(f"  {command}"), soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    failed = sum(reply.status != 200 for reply in shown.replies)
    if failed:
        console.print(f"[bold red]✗[/] {failed} requests were not answered with 200; the table says how")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
