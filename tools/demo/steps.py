# SPDX-License-Identifier: Apache-2.0
"""The demo's steps against the REST API and the lab's hosts."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from picture import Tunnel

from epic.cli import settings
from epic.cli.commands import platform
from epic.cli.commands.manifests import read_manifests
from epic.cli.printing.health import gateway_line, run_lines
from epic.client import PREFIX, EpicClient
from epic.controller.apply import remove, write_item
from epic.controller.classes import CoreSettings, Login
from epic.controller.core import translate
from epic.controller.desired import Desired, Item
from epic.controller.documents import read_file
from epic.controller.objects import Objects, parse
from epic.controller.state import Owned
from epic.errors import EpicError
from lab import CHECKOUT, CONFIGURATION, STATE, StepFailed, groups, logs, run, shown_ssh

ACCOUNT = "shop"
EXAMPLES = CHECKOUT / "examples" / "shop"
KEY = STATE / "shop.key"
PLAYBOOK_LOG = STATE / "demo.log"

# Of a long message the beginning says what matters; the logs have the rest.
_SAID = 300
_READ_COUNTERS = """
import json, pathlib, epic.bpf
from epic.bpf.dataplane import Dataplane
pins = pathlib.Path("/sys/fs/bpf/epic")
counters = Dataplane(pins, pathlib.Path(epic.bpf.__path__[0]) / "gue.bpf.o").tunnel_counters()
print(json.dumps({i: [c.rx_packets, c.tx_packets] for i, c in counters.items()}))
"""

T = TypeVar("T")


def control_host() -> str:
    """The host of the control plane."""
    return groups()["epic_control"][0]


def connect() -> tuple[EpicClient, Login]:
    """The REST API as the administrator that site.yml made."""
    if not CONFIGURATION.is_file():
        raise StepFailed(f"there is no {CONFIGURATION}: site.yml has not run", "make site")
    try:
        found = settings.load(CONFIGURATION)
        client = settings.connect(found, found.secret())
        client.get(PREFIX)
    except EpicError as error:
        raise StepFailed(str(error), *logs((control_host(), "epic-control"))) from error
    return client, Login(found.server, found.username, found.secret())


def make_platform(client: EpicClient) -> None:
    """The account, pool, template and user of examples/shop/platform.yaml."""
    if not KEY.exists():
        KEY.touch(mode=0o600)
        KEY.write_text(secrets.token_urlsafe(24) + "\n")
    found = read_manifests([EXAMPLES / "platform.yaml"], ACCOUNT)
    if found.problems:
        raise StepFailed("\n".join(found.problems))
    for obj in found.own:
        if obj.kind == platform.USER:
            obj.spec["password-file"] = str(KEY)
        platform.write(client, obj, prompt=_no_prompt, warn=print)


def _no_prompt(question: str) -> str:
    raise StepFailed(f"{question}: the demo asks nothing")


def run_backends() -> None:
    """playbooks/demo.yml: backends on the workload hosts, and manifests for their agents."""
    variables = STATE / "demo.json"
    variables.touch(mode=0o600)
    variables.write_text(json.dumps({"demo_backend_key": KEY.read_text().strip()}))
    inventory = CHECKOUT / "inventories/lab/hosts.yml"
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory),
        str(CHECKOUT / "playbooks/demo.yml"), "-e", f"@{variables}",
    ]  # fmt: skip
    environment = os.environ | {"ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
    with PLAYBOOK_LOG.open("w") as log:
        done = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=CHECKOUT, env=environment, check=False
        )
    if done.returncode:
        tail = "\n".join(PLAYBOOK_LOG.read_text().splitlines()[-20:])
        raise StepFailed(f"playbooks/demo.yml failed:\n{tail}", f"less {PLAYBOOK_LOG}")


def desired(login: Login) -> Desired:
    """What examples/shop/gateway.yaml asks for."""
    objects, problems = parse(read_file(EXAMPLES / "gateway.yaml"))
    found = translate(Objects(objects), CoreSettings(cluster="lab", login=login))
    wrong = [*problems, *found.problems]
    if wrong:
        raise StepFailed("\n".join(map(str, wrong)))
    return found


def remove_old(client: EpicClient, wanted: Desired) -> bool:
    """The gateway of an earlier demo, until its nodes have let go of it; whether there was one."""

    def left() -> list[Item]:
        return [item for item in wanted.items if client.find(item.address.path) is not None]

    there = left()
    for item in reversed(there):
        remove(client, Owned.of(item))
    what = "the gateway of an earlier demo does not go"
    eventually(lambda: not left(), 60, what, lambda: logs((control_host(), "epic-control")))
    return bool(there)


def wait_for_runs(client: EpicClient) -> None:
    """Return when no run is under way; one that failed and waits for its next attempt is not."""

    def idle() -> bool:
        states = [run["status"] for run in client.get(f"{PREFIX}/runs")["items"]]
        return not any(
            s["state"] == "running" or (s["state"] == "queued" and "not-before" not in s) for s in states
        )

    eventually(idle, 60, "playbook runs do not end", lambda: logs((control_host(), "epic-control")))


def wait_for_endpoints(client: EpicClient) -> list[str]:
    """The workload nodes, when the agents of all have published their endpoints."""
    expected = set(groups()["linux_clients"])

    def nodes() -> list[str] | None:
        slices = client.get(f"{PREFIX}/accounts/{ACCOUNT}/slices")["items"]
        found = {node for s in slices for node in s["spec"].get("nodeAddresses", {})}
        return sorted(found) if expected <= found else None

    units = [(host, "epic-agent") for host in sorted(expected)]
    what = f"the agents of {', '.join(sorted(expected))} have not published their backends"
    return eventually(nodes, 45, what, lambda: logs(*units))


def publish(client: EpicClient, wanted: Desired) -> dict[str, Any]:
    """The gateway, then its route; the gateway as EPIC answered."""
    try:
        for item in wanted.proxies:
            write_item(client, item)
        proxy: dict[str, Any] = client.get(wanted.proxies[0].address.path)["proxy"]
        for item in wanted.routes:
            write_item(client, item)
    except EpicError as error:
        raise StepFailed(str(error), *logs((control_host(), "epic-control"))) from error
    return proxy


def wait_for_all_instances(client: EpicClient, wanted: Desired) -> dict[str, Any]:
    """The gateway, when every instance of it is announced."""

    def proxy() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(wanted.proxies[0].address.path)["proxy"]
        instances = found["status"].get("instances") or []
        return found if instances and all(i.get("announced") for i in instances) else None

    what = "not every instance of the gateway is announced"
    return eventually(proxy, 20, what, lambda: diagnosis(client, wanted))


def wait_for_next_hops(proxy: dict[str, Any]) -> None:
    """Return when the router spreads the gateway's requests over all instances.

    A router that takes up another next hop maps connections of others to it, and they are reset.
    """
    address, wanted = proxy["spec"]["public-address"], len(proxy["status"]["instances"])

    def settled() -> bool:
        return run("router", f"ip route show {address}").count("via ") == wanted

    what = f"the router has not {wanted} next hops for {address}"
    eventually(settled, 20, what, lambda: [shown_ssh("router", f"ip route show {address}")])


def diagnosis(client: EpicClient, wanted: Desired) -> list[str]:
    """What the API says of the gateway and its runs, and the logs that say more."""
    path = wanted.proxies[0].address.path
    body = client.find(path)
    said = []
    if body is not None:
        line = gateway_line(body["proxy"], datetime.now(UTC))
        said.append(f"# gateway: {line.state}. {line.problem[:_SAID]}")
    runs = run_lines(client.get(f"{PREFIX}/runs")["items"], shown=3)
    said += [f"# {line.name}: {line.state}. {line.details} {line.problem[:_SAID]}" for line in runs]
    nodes = [i["node"] for i in (body or {}).get("proxy", {}).get("status", {}).get("instances") or ()]
    units = [(control_host(), "epic-control"), *((node, "epic-agent") for node in nodes)]
    gateway = f"{ACCOUNT}.{wanted.proxies[0].uid}"
    units += [(node, f"epic-envoy@{gateway}") for node in nodes]
    return [*said, *logs(*units), shown_ssh("router", "vtysh -c 'show ip route bgp'")]


def read_tunnels(client: EpicClient, wanted: Desired) -> list[Tunnel]:
    """The gateway's tunnels with their counters."""
    proxy = client.get(wanted.proxies[0].address.path)["proxy"]
    slices = client.get(f"{PREFIX}/accounts/{ACCOUNT}/slices")["items"]
    workloads = {a: n for s in slices for n, a in s["spec"].get("nodeAddresses", {}).items()}
    nodes = {n["spec"]["address"]: n["metadata"]["name"] for n in client.get(f"{PREFIX}/nodes")["items"]}
    instances = [i["node"] for i in proxy["status"].get("instances") or ()]
    counters = {node: _counters(node) for node in instances}
    found = []
    for workload, ends in (proxy["spec"].get("gue-tunnel-endpoints") or {}).items():
        for address, end in ends["epic-endpoints"].items():
            node, number = nodes.get(address, address), end["tunnel-id"]
            received, sent = counters.get(node, {}).get(str(number), (None, None))
            found.append(Tunnel(number, node, workloads.get(workload, workload), received, sent))
    return sorted(found, key=lambda tunnel: tunnel.id)


def _counters(node: str) -> dict[str, tuple[int, int]]:
    try:
        found: dict[str, tuple[int, int]] = json.loads(
            run(node, "/opt/epic/current/bin/python -", _READ_COUNTERS)
        )
    except (StepFailed, ValueError):
        # The screen is worth showing without them.
        return {}
    return found


def eventually(
    probe: Callable[[], T | None], seconds: float, what: str, look_at: Callable[[], list[str]]
) -> T:
    """The first true result; a failed step when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = probe()
        except EpicError as error:
            raise StepFailed(f"{what}: {error}", *look_at()) from error
        if found:
            return found
        if time.monotonic() > deadline:
            raise StepFailed(f"{what} (waited {seconds:g} s)", *look_at())
        time.sleep(0.1)
