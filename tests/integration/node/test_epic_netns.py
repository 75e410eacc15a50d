# SPDX-License-Identifier: Apache-2.0
"""The network namespaces that the unit epic-netns@ makes and removes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "roles/gateway_node/files/epic-netns"
GATEWAY, INTERFACE, PUBLIC = "root.U1", "epg64400001298c", "203.0.113.7"
INSIDE, INSIDE6 = "100.64.0.1", "fd65:7069:6300::6440:1"

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def host(*commands: str, **environment: str) -> list[Any]:
    """Run commands on a host of their own, whose /run nobody else sees; returns the JSON they print."""
    own = {"PUBLIC": PUBLIC, "INSIDE": INSIDE, "INSIDE6": INSIDE6, "INTERFACE": INTERFACE, "MTU": "1452"}
    values = {**own, **environment}
    # namespaces of this machine are none of that host's
    empty = "umount --lazy --recursive /run/netns 2>/dev/null || true", "mount -t tmpfs none /run"
    script = "\n".join(["set -e", *empty, "mkdir -p /run/netns /run/epic/agent", *commands])
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", script],
        env={"PATH": os.environ["PATH"], **values},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]


def unit(verb: str, **environment: str) -> str:
    """The command of the unit."""
    values = "".join(f"{name}={value} " for name, value in environment.items())
    return f"{values}sh {SCRIPT} {verb} {GATEWAY}"


def inside(what: str) -> str:
    """Ask the instance's namespace."""
    return f"ip -n epic-{GATEWAY} -j {what} | tr -d '\\n'; echo"


STATE = (
    inside("-6 address show dev eth0"),
    inside("-6 route show default"),
    inside("neighbour show nud all"),
)


def ipv6(found: list[Any]) -> tuple[list[str], list[str], list[str]]:
    """Addresses, default routes and permanent neighbours of what STATE printed."""
    links, routes, neighbours = found
    return (
        [f"{a['local']}/{a['prefixlen']}" for link in links for a in link.get("addr_info", ())],
        [f"{route['gateway']} {route['dev']}" for route in routes],
        [f"{n['dst']} {n['lladdr']}" for n in neighbours if "PERMANENT" in n["state"]],
    )


WHOLE = ([f"{INSIDE6}/128"], ["fe80::1 eth0"], ["fe80::1 02:00:00:00:00:01"])


def test_an_instance_has_one_ipv6_address_and_asks_nobody_for_its_next_hop() -> None:
    assert ipv6(host(unit("up"), *STATE)) == WHOLE


def test_what_comes_for_its_public_addresses_reaches_it_and_asks_nobody() -> None:
    """IPv6, too: whoever sends to an address of it needs no answer to be found on the link."""
    public6, client6 = "2001:db8::7", "2001:db8:1::1"
    ask = f"ping -c 1 -W 5 -I {client6} {public6} >/dev/null && echo 1"
    found = host(
        "ip link set lo up",
        f"ip address add {client6}/128 dev lo",
        "ip -6 rule add pref 100 lookup 200",
        unit("up"),
        ask,
        "ip -j route show table 200 | tr -d '\\n'; echo",
        "ip -6 -j route show table 200 | tr -d '\\n'; echo",
        unit("down"),
        "ip -6 -j route show table 200 | tr -d '\\n'; echo",
        PUBLIC=f"{PUBLIC} {public6}",
    )
    assert found[0] == 1
    assert [{route["dst"] for route in routes} for routes in found[1:]] == [
        {PUBLIC, INSIDE},
        {public6},
        set(),
    ]


def test_a_link_too_small_for_its_ipv6_address_is_refused_with_the_reason() -> None:
    found = host(
        f"! {unit('up')} 2>/run/refusal",
        "grep -c 'MTU of 1200 is too small for the IPv6 address' /run/refusal",
        "ip -j link show type veth",
        PUBLIC="2001:db8::7",
        MTU="1200",
    )
    assert found == [1, []]


def test_no_router_and_no_neighbour_can_give_it_another_address() -> None:
    settings = ("accept_ra", "autoconf", "router_solicitations", "dad_transmits", "disable_ipv6")
    read = [f"ip netns exec epic-{GATEWAY} cat /proc/sys/net/ipv6/conf/eth0/{name}" for name in settings]
    assert host(unit("up"), *read) == [0, 0, 0, 0, 0]


def test_a_link_too_small_for_ipv6_has_ipv4_only() -> None:
    found = host(unit("up"), inside("-4 address show dev eth0"), *STATE, MTU="1200")
    assert (found[0][0]["mtu"], found[0][0]["addr_info"][0]["local"]) == (1200, INSIDE)
    assert ipv6(found[1:]) == ([], [], [])


def test_nothing_is_left_of_a_removed_one() -> None:
    links, namespaces = host(unit("up"), unit("down"), "ip -j link show type veth", "ip -j netns list; echo")
    assert links == []
    assert namespaces == []


SOCKETS = f"""
import os, socket
listeners = []
for gateway in ("{GATEWAY}", "root.U2"):
    path = f"/run/epic/xds/{{gateway}}/xds.sock"
    listeners.append(listener := socket.socket(socket.AF_UNIX))
    listener.bind(path)
    listener.listen()
    os.chmod(path, 0o666)
    os.set_inheritable(listener.fileno(), True)
nobody = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups"]
os.execvp("setpriv", [*nobody, "python3", "-c", os.environ["ASK"]])
"""
ASK = f"""
import json, socket
found = {{}}
for path in ("agent", "xds/{GATEWAY}", "xds/root.U2"):
    try:
        socket.socket(socket.AF_UNIX).connect(f"/run/epic/{{path}}/xds.sock")
        found[path] = "connected"
    except OSError as error:
        found[path] = type(error).__name__
print(json.dumps(found))
"""


def test_the_agents_socket_of_a_gateway_is_reached_through_its_units_mount_alone() -> None:
    mounted = (
        f"mount --bind /run/epic/xds/{GATEWAY} /run/epic/agent",
        "mount -o remount,bind,ro /run/epic/agent",
    )
    found = host(
        unit("up"),
        "mkdir -m 0711 /run/epic/xds/root.U2",
        *mounted,
        'python3 -c "$SOCKETS"',
        SOCKETS=SOCKETS,
        ASK=ASK,
    )
    assert found == [
        {
            "agent": "connected",
            f"xds/{GATEWAY}": "PermissionError",
            "xds/root.U2": "PermissionError",
        }
    ]


def test_what_the_unit_made_goes_with_it() -> None:
    print_directories = (
        "import os, json; print(json.dumps([*map(os.listdir, ('/run/epic/xds', '/run/netns'))]))"
    )
    listing = f'python3 -c "{print_directories}"'
    up, down = host(unit("up"), listing, unit("down"), listing)
    assert up == [[GATEWAY], [f"epic-{GATEWAY}"]]
    assert down == [[], []]


def test_a_namespace_is_mounted_once_also_where_mounts_of_run_are_shared() -> None:
    """systemd reads all mounts of the host many times for each unit that it confines."""
    count = f"grep -c ' /run/netns/epic-{GATEWAY} ' /proc/self/mountinfo"
    assert host("mount --make-shared /run", unit("up"), count) == [1]
    again = host(
        "mount --make-shared /run", unit("up"), unit("down"), unit("up"), "ip netns add other", count
    )
    assert again == [1]
