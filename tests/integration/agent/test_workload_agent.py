# SPDX-License-Identifier: Apache-2.0
"""The workload role behind NAT, together with the gateway role.

- Requests cross the tunnel, though only the workload node can open the way, with strict reverse path filters.
- A reboot of the node without the REST API changes nothing.
- An EPIC node that lost all that it had observed is reached again with the next hello.
- What is listed no more is removed, after a while; so is everything by a clean-up.
- What others take away is back soon; meanwhile nothing leaves in the clear.
"""

from __future__ import annotations

import asyncio
import platform
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from agent_control import INSIDE, KEY, PUBLIC, TUNNEL_ID, Gateway
from agent_node import Node, endpoints_at, eventually, plane, tunnel_ids_at
from agent_workload import ADDRESS, Workload, tunnel_list

from epic.agent.runtime import store
from epic.bpf.dataplane import Dataplane

pytestmark = pytest.mark.root


def reached(node: Node) -> bool:
    return node.get().startswith("backend")


def dataplane(workload: Workload) -> Dataplane:
    return plane(workload.pins)


def route(workload: Workload) -> str:
    return workload.namespace.run(f"ip route show {INSIDE} proto 50")


async def test_requests_cross_the_tunnel(node: Node, workload: Workload) -> None:
    assert not reached(node)
    workload.start_agent()
    await eventually(lambda: reached(node), 60, "an answer of the backend")
    path = "/api/epic/accounts/shop/workload-nodes/certificates?cluster=lab&node=node1"
    assert workload.api.paths.count(path) == 1
    assert "via 169.254.231.28 dev up0 onlink mtu 1452" in route(workload), route(workload)

    counters = dataplane(workload).tunnel_counters()[TUNNEL_ID]
    assert min(counters.rx_packets, counters.tx_packets) > 5
    report = await node.control.report(lambda r: r.tunnels and r.tunnels[0].rx_packets)
    assert report.tunnels[0].observed_address == "172.30.11.1"
    assert 0 <= report.tunnels[0].hello_age < 8


async def test_both_ends_tell_how_the_tunnel_is(node: Node, workload: Workload) -> None:
    workload.start_agent()
    await eventually(lambda: reached(node), 60, "an answer of the backend")
    report = await node.control.report(lambda r: r.tunnels and r.tunnels[0].hello_age >= 0)
    assert (list(report.tunnels[0].epochs), report.tunnels[0].signing_epoch) == ([1], 1)
    assert "tag_wrong" in report.drops
    await eventually(lambda: "round_trip" in str(workload.api.measured), 60, "a measurement")
    (measured,) = workload.api.measured[-1].tunnels
    assert (measured.id, list(measured.epochs), measured.loss) == (TUNNEL_ID, [1], 0)
    assert 0 < measured.round_trip.min <= measured.round_trip.avg < 1
    for namespace, words in (
        (workload.namespace, f'epic_tunnel_up{{tunnel="{TUNNEL_ID}",gateway="shop.web"}} 1'),
        (node.node, 'epic_instance_announced{gateway="shop.web"} 1'),
    ):
        text = namespace.run("curl -sS http://127.0.0.1:9101/metrics")
        assert words in text
        assert 'epic_drops_total{reason="tag_wrong"} 0' in text


def confirmed(workload: Workload) -> tuple[list[int], int] | None:
    """The keys that the workload node said last that it has."""
    for measured in workload.api.measured[-1:]:
        (tunnel,) = measured.tunnels
        return list(tunnel.epochs), tunnel.signing_epoch
    return None


async def test_keys_are_rotated_under_traffic_without_a_lost_packet(node: Node, workload: Workload) -> None:
    new = bytes(range(16, 32))
    both = ((1, KEY), (2, new))
    workload.start_agent()
    await eventually(lambda: reached(node), 60, "an answer of the backend")
    # The ends hear of each step at different times, in either order.
    for epic_first, keys, signing in ((True, both, 1), (True, both, 2), (False, ((2, new),), 2)):
        steps = [
            lambda k=keys, s=signing: node.control.publish(
                Gateway(forward=True, keys=k, signing=s).snapshot(ADDRESS)
            ),
            lambda k=keys, s=signing: workload.api.publish(tunnel_list(ADDRESS, keys=k, signing=s)),
        ]
        for step in steps if epic_first else reversed(steps):
            step()
            for _ in range(5):
                assert reached(node)
        epochs = [epoch for epoch, _ in keys]
        await node.control.report(
            lambda r, e=epochs, s=signing: (list(r.tunnels[0].epochs), r.tunnels[0].signing_epoch) == (e, s)
        )
        await eventually(
            lambda e=epochs, s=signing: confirmed(workload) == (e, s), 15, "the confirmation of the keys"
        )
    report = await node.control.report(lambda r: r.tunnels[0].hello_age < 3)
    assert (report.drops["tag_wrong"], report.drops["key_missing"]) == (0, 0)
    drops = dataplane(workload).drop_counters()
    assert (drops["tag_wrong"], drops["key_missing"]) == (0, 0)


async def test_programs_with_other_maps_take_over_without_a_lost_packet(
    node: Node, workload: Workload, tmp_path: Path
) -> None:
    workload.start_agent()
    await eventually(lambda: reached(node), 60, "an answer of the backend")
    newer = with_more_room(tmp_path)
    with pings(node, 1200) as pinging:
        node.configure(object=str(newer))
        workload.configure(object=str(newer))
        for agent, pins in ((workload, workload.pins), (node, node.pins)):
            (before,) = pins.iterdir()
            agent.stop_agent()
            agent.start_agent()
            await eventually(lambda pins=pins, before=before: settled(pins, before), 60, "the take-over")
        output = await asyncio.to_thread(pinging.communicate)
    assert " 0% packet loss" in output[0], output
    assert reached(node)


def pings(node: Node, count: int) -> subprocess.Popen[str]:
    """A hundred a second from the instance to the workload node."""
    command = ["ping", "-q", "-c", str(count), "-i", "0.01", "-I", str(INSIDE), ADDRESS]
    with node.instance:
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def settled(pins: Path, before: Path) -> bool:
    """Whether another version is alone."""
    return not before.exists() and not list(pins.glob("*/due"))


def with_more_room(directory: Path) -> Path:
    """Programs with other maps of endpoints and of inside addresses; that of tunnels changes with these."""
    copy = directory / "bpf"
    shutil.copytree(Path(__file__).parents[3] / "bpf", copy)
    header = copy / "consts.h"
    text = header.read_text(encoding="utf-8")
    header.write_text(re.sub(r"(MAX_(?:ENDPOINTS|INSIDES)) .*", r"\1 65536", text), encoding="utf-8")
    made = directory / "newer.o"
    subprocess.run(["make", "-s", "-C", copy, f"OBJECT={made}", made], check=True)
    return made


async def test_a_request_under_way_to_an_endpoint_that_is_removed_is_answered(
    node: Node, workload: Workload
) -> None:
    size = 8 << 20
    (workload.directory / "pages" / "long").write_bytes(bytes(size))
    workload.start_agent()
    await eventually(lambda: reached(node), 60, "an answer of the backend")
    command = ["curl", "-sS", "--limit-rate", "3M", "--max-time", "60", f"http://{PUBLIC}/long"]
    with node.client:
        under_way = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert under_way.stdout is not None
    begun = await under_way.stdout.readexactly(1 << 20)
    node.control.publish(Gateway(forward=True, revision="r2").snapshot())
    workload.api.publish(tunnel_list())
    await eventually(lambda: "no healthy upstream" in node.get(), 60, "a new request that is refused")
    rest, _ = await under_way.communicate()
    assert len(begun) + len(rest) == size
    await eventually(lambda: not endpoints_at(node.pins), 60, "the removal of the endpoint")


async def test_a_reboot_without_the_rest_api_changes_nothing(node: Node, workload: Workload) -> None:
    workload.start_agent()
    await eventually(lambda: reached(node), 60, "an answer of the backend")
    workload.api.stop()
    workload.stop_agent()
    assert reached(node)
    workload.clean_up()
    assert not reached(node)
    workload.start_agent()
    await eventually(lambda: reached(node), 60, "an answer after the reboot")
    state = workload.directory / "state"
    assert {path.stat().st_mode & 0o777 for path in state.iterdir() if path.is_file()} == {0o600}


@pytest.mark.parametrize("how", ["damaged", "lost"])
async def test_an_agent_without_its_state_removes_nothing_that_works(
    node: Node, workload: Workload, how: str
) -> None:
    workload.start_agent()
    await eventually(lambda: reached(node), 60, "an answer of the backend")
    workload.api.stop()
    workload.stop_agent()
    state = workload.directory / "state"
    for path in [path for path in state.iterdir() if path.is_file()]:
        if how == "lost":
            path.unlink()
        elif path.name == store.FILE:
            path.write_bytes(path.read_bytes()[:20])
    workload.start_agent()
    # After 15 s without a hello the other end calls the tunnel down, which is another matter.
    begin = time.monotonic()
    while time.monotonic() - begin < 7:
        assert reached(node)
        await asyncio.sleep(0.1)


@pytest.fixture
def full_disk(workload: Workload) -> Iterator[Path]:
    """A file that leaves no room where the workload node's agent keeps its state."""
    state = workload.directory / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", state], check=True)
    filler = state / "filler"
    filler.write_bytes(bytes(64 * 1024))
    yield filler
    workload.stop_agent()
    subprocess.run(["umount", state], check=True)


async def test_a_full_disk_stops_neither_hellos_nor_changes_of_the_list(
    node: Node, workload: Workload, full_disk: Path
) -> None:
    workload.start_agent()
    await eventually(lambda: reached(node), 60, "an answer of the backend")
    workload.api.publish(tunnel_list(ADDRESS, "192.168.50.99"))
    both = {(INSIDE, IPv4Address(ADDRESS)), (INSIDE, IPv4Address("192.168.50.99"))}
    await eventually(lambda: dataplane_endpoints(workload) == both, what="the second endpoint")
    await asyncio.to_thread(full_disk.unlink)
    stored = full_disk.with_name(store.FILE)
    await eventually(lambda: stored.exists() and stored.stat().st_size > 0, 60, "the state on disk")


async def test_an_epic_node_that_begins_anew_learns_from_the_next_hello(
    node: Node, workload: Workload
) -> None:
    workload.start_agent()
    await eventually(lambda: reached(node), 60, "an answer of the backend")
    before = plane(node.pins).generation(TUNNEL_ID)
    node.stop_agent()
    node.clean_up()
    assert not reached(node)
    node.start_agent()
    await eventually(lambda: reached(node), 60, "an answer after the reboot")
    assert plane(node.pins).generation(TUNNEL_ID) not in {0, before}


async def test_what_is_listed_no_more_is_removed(node: Node, workload: Workload) -> None:
    workload.start_agent()
    await eventually(lambda: bool(dataplane_endpoints(workload)), 60, "the endpoint")
    workload.api.publish(tunnel_list(ADDRESS, "192.168.50.99"))
    both = {(INSIDE, IPv4Address(ADDRESS)), (INSIDE, IPv4Address("192.168.50.99"))}
    await eventually(lambda: dataplane_endpoints(workload) == both, what="the second endpoint")
    workload.api.publish(tunnel_list())
    await eventually(lambda: not dataplane_endpoints(workload), 60, "the removal of the endpoints")
    await eventually(lambda: not tunnel_ids_at(workload.pins) and not route(workload))


async def test_a_clean_up_leaves_nothing(node: Node, workload: Workload) -> None:
    workload.start_agent()
    await eventually(lambda: bool(dataplane_endpoints(workload)), 60, "the endpoint")
    await eventually(lambda: bool(route(workload)))
    workload.stop_agent()
    workload.clean_up()
    assert not route(workload)
    assert "bpf" not in workload.namespace.run("tc filter show dev up0 ingress")
    assert "bpf" not in workload.namespace.run("tc filter show dev up0 egress")


def dataplane_endpoints(workload: Workload) -> set[tuple[IPv4Address, IPv4Address]]:
    try:
        return set(endpoints_at(workload.pins))
    except FileNotFoundError:
        # The programs are not loaded yet.
        return set()


SEEN = """table netdev watch {
  chain first {
    type filter hook ingress device "lan0" priority 0;
    ip saddr 100.64.0.0/10 counter drop
    ip daddr 100.64.0.0/10 counter drop
  }
}
"""


@pytest.fixture
def seen(node: Node, workload: Workload, tmp_path: Path) -> Callable[[], int]:
    """How many packets the network behind the workload node has seen of inside addresses, past the tunnel."""
    rules = tmp_path / "watch.nft"
    rules.write_text(SEEN, encoding="utf-8")
    node.far.run(f"nft -f {rules}")

    def count() -> int:
        return sum(map(int, re.findall(r"packets (\d+)", node.far.run("nft list table netdev watch"))))

    return count


class Flood:
    """Datagrams from the workload node to an inside address, as fast as it can."""

    def __init__(self, workload: Workload) -> None:
        with workload.namespace:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((ADDRESS, 0))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.sent = 0

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _send(self) -> None:
        while not self._stop.wait(0.0002):
            with suppress(OSError):
                self._socket.sendto(b"a reply", (str(INSIDE), 9))
                self.sent += 1


HAS_TCX = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2]) >= (6, 6)


@pytest.mark.skipif(not HAS_TCX, reason="this kernel's filters are the only wall")
@pytest.mark.parametrize(
    "breach",
    [
        "tc qdisc del dev up0 clsact",
        "tc filter del dev up0 egress",
        "tc qdisc replace dev up0 clsact",
        "ip link set up0 down; ip link set up0 up; ip route replace default via 192.168.50.1",
    ],
)
async def test_nothing_leaves_in_the_clear_whoever_removes_the_filters(
    node: Node, workload: Workload, seen: Callable[[], int], breach: str
) -> None:
    workload.start_agent()
    await eventually(lambda: reached(node), 60, "an answer of the backend")
    with Flood(workload) as flood:
        await eventually(lambda: flood.sent > 100, what="the flood")
        for _ in range(5):
            workload.namespace.run(f"sh -c '{breach}'")
            before = flood.sent
            await eventually(lambda b=before: flood.sent > b + 100, what="the flood")
            await eventually(lambda: guarded(workload), 2, "the filter")
        workload.stop_agent()
        workload.namespace.run("tc qdisc del dev up0 clsact")
        before = flood.sent
        await eventually(lambda: flood.sent > before + 300, what="the flood without an agent")
    assert seen() == 0


def guarded(workload: Workload) -> bool:
    return "epic_" in workload.namespace.run("tc filter show dev up0 egress")


BREACHES = {
    "filters": "tc qdisc del dev up0 clsact",
    "routes": "ip route flush proto 50",
    "rules": "ip rule flush",
    "neighbours": "ip neighbour flush nud permanent dev up0; ip neighbour del 169.254.231.28 dev up0 || true",
    "link": "ip link set up0 down; ip link set up0 up; ip route replace default via 192.168.50.1",
}


@pytest.mark.parametrize("what", BREACHES)
async def test_what_others_take_away_is_back_soon(node: Node, workload: Workload, what: str) -> None:
    workload.start_agent()
    await eventually(lambda: reached(node), 60, "an answer of the backend")
    workload.namespace.run(f"sh -c '{BREACHES[what]}'")
    await eventually(lambda: reached(node), 2 if what != "neighbours" else 7, f"an answer without its {what}")
    assert guarded(workload)
