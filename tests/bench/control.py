# SPDX-License-Identifier: Apache-2.0
"""What the real epic-control takes at full size, each figure with its goal.

1,000 gateways of 50 accounts, 10,000 routes, 10,000 slices with 100,000 endpoints, 20,000 tunnels. No EPIC
node is connected, and Envoy's validation is a program that accepts everything. The clients are a process of
the same machine: on one with two processors times are waiting for a processor as soon as others work there.
`control.py [GATEWAYS] [--etcd]`; with etcd it is all measured a second time on that, and compared.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))

from control_figures import (
    LOOP_FAULTS,
    Figures,
    longest_piece,
    memory,
    print_ratios,
    processor_seconds,
    wait_until_idle,
)
from control_nodes import Watcher, close_all, event_times, live_idle, open_all, tls
from control_process import ADMIN, API, ControlProcess
from etcd_server import EtcdServer

from epic.cache.store import CachedStore
from epic.model.base import Metadata
from epic.model.resources import (
    Account,
    AccountSpec,
    GWEndpointSlice,
    GWProxy,
    GWRoute,
    LBServiceGroup,
    ServicePrefix,
    Tunnel,
)
from epic.store.interface import Transaction
from epic.store.location import StoreLocation

GATEWAYS, OF_ACCOUNT, PARTS = 1000, 20, 10
CLIENTS, WRITES, SECONDS = 50, 300, 5.0
WATCHERS, EVENTS = 1000, 100
IDLE_NODES, IDLE_SECONDS = 200, 30.0
BUILT_SECONDS = 600.0
_NOW = datetime.now(UTC).replace(microsecond=0).isoformat()


def account_of(number: int) -> str:
    return f"a{number // OF_ACCOUNT}"


def meta(number: int, name: str) -> dict[str, Any]:
    return {"name": name, "namespace": account_of(number)}


def gateway(number: int) -> GWProxy:
    address = str(IPv4Address("10.200.0.0") + number)
    instances = [
        {
            "node": f"e{i}",
            "inside-address": str(IPv4Address("100.64.0.1") + 2 * number + i),
            "phase": "Serving",
            "unit": "current",
            "envoy-version": "1",
            "announced": True,
            "published": True,
            "since": _NOW,
        }
        for i in (1, 2)
    ]
    spec = {
        "client-ref": {"clusterID": "c", "namespace": "n", "name": f"g{number}", "uid": f"g{number}"},
        "display-name": f"g{number}",
        "group": "g",
        "service-prefix": "big",
        "public-address": address,
        "gateway": {"gatewayClassName": "k", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
        "endpoints": [{"dnsName": f"g{number}.example.net", "targets": [address]}],
    }
    status = {"service": number + 1, "instances": instances}
    return GWProxy.model_validate({"metadata": meta(number, f"g{number}"), "spec": spec, "status": status})


def route_spec(number: int, part: int, path: str) -> dict[str, Any]:
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": path}}],
        "backendRefs": [{"kind": "Service", "name": f"s{number}-{part}", "port": 80}],
    }
    parents = [{"name": f"g{number}"}]
    http = {"parentRefs": parents, "hostnames": [f"h{number}-{part}.example.net"], "rules": [rule]}
    return {"clientRef": {"clusterID": "c", "uid": f"r{number}-{part}"}, "http": http}


def route(number: int, part: int) -> GWRoute:
    spec = route_spec(number, part, "/")
    spec["client-ref"] = spec.pop("clientRef")
    return GWRoute.model_validate({"metadata": meta(number, f"r{number}-{part}"), "spec": spec})


def slice_spec(number: int, part: int, last: int = 10) -> dict[str, Any]:
    endpoints = [
        {"addresses": [f"10.{part}.{number % 250}.{i}"], "nodeName": f"n{i}", "conditions": {"ready": True}}
        for i in (*range(1, 10), last)
    ]
    for endpoint in endpoints[9:]:
        endpoint["nodeName"] = "n10"
    return {
        "clientRef": {"clusterID": "c", "uid": f"s{number}-{part}-x"},
        "parentRef": {"clusterID": "c", "uid": f"s{number}-{part}"},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "nodeAddresses": {f"n{i}": f"192.168.{i}.{number // OF_ACCOUNT + 1}" for i in range(1, 11)},
    }


def slice_(number: int, part: int) -> GWEndpointSlice:
    content = slice_spec(number, part)
    content |= {"client-ref": content["clientRef"], "parent-ref": content["parentRef"]}
    metadata = meta(number, f"s{number}-{part}-x")
    return GWEndpointSlice.model_validate({"metadata": metadata, "spec": content})


def tunnels(transaction: Transaction, number: int, proxy: GWProxy) -> None:
    for instance in proxy.status.instances:
        for i in range(1, 11):
            spec = {
                "proxy": proxy.name,
                "service": number + 1,
                "epic-node": instance.node,
                "inside-address": str(instance.inside_address),
                "cluster-id": "c",
                "node-name": f"n{i}",
                "node-address": f"192.168.{i}.{number // OF_ACCOUNT + 1}",
                "keys": [{"epoch": 1, "secret": "00" * 16}],
                "signing-epoch": 1,
                "signing-since": _NOW,
            }
            name = str(transaction.next_number("tunnel"))
            transaction.create(Tunnel.model_validate({"metadata": meta(number, name), "spec": spec}))


def fill(location: StoreLocation, count: int) -> None:
    """All of it, beside what there is."""
    with closing(CachedStore(location)) as store:
        with store.transaction() as transaction:
            pool = {"pool": "10.200.0.0/16", "subnet": "10.200.0.0/16"}
            prefix = {"metadata": {"name": "big"}, "spec": {"public-pool": pool}}
            transaction.create(ServicePrefix.model_validate(prefix))
            for number in range(0, count, OF_ACCOUNT):
                spec = AccountSpec(proxy_limit=100)
                transaction.create(Account(metadata=Metadata(name=account_of(number)), spec=spec))
                group = {"metadata": meta(number, "g"), "spec": {"service-prefix": "big"}}
                transaction.create(LBServiceGroup.model_validate(group))
        for number in range(count):
            with store.transaction() as transaction:
                proxy = transaction.create(gateway(number))
                tunnels(transaction, number, proxy)
                for part in range(PARTS):
                    transaction.create(route(number, part))
                    transaction.create(slice_(number, part))


async def timed(calls: int, call: Callable[[int], Awaitable[httpx.Response]]) -> list[float]:
    """The seconds of each call."""
    times = []
    for number in range(calls):
        begun = time.perf_counter()
        reply = await call(number)
        times.append(time.perf_counter() - begun)
        assert reply.status_code in {200, 302}, reply.text
    return times


async def rate(call: Callable[[int, int], Awaitable[httpx.Response]]) -> float:
    """Replies a second to 50 clients."""
    done = 0
    # Connections are there by then.
    await asyncio.gather(*(call(which, 0) for which in range(CLIENTS)), return_exceptions=True)
    end = time.perf_counter() + SECONDS

    async def client(which: int) -> None:
        nonlocal done
        turn = 0
        while time.perf_counter() < end:
            turn += 1
            with suppress(httpx.TransportError):  # the server had just closed a connection that was idle
                reply = await call(which, turn)
                done += reply.status_code in {200, 302}

    await asyncio.gather(*(client(which) for which in range(CLIENTS)))
    return done / SECONDS


class Calls:
    """What clients ask for."""

    def __init__(self, client: httpx.AsyncClient, count: int) -> None:
        self._client = client
        self._count = count

    def put_slice(self, number: int, turn: int) -> Awaitable[httpx.Response]:
        """Another endpoint on node n10."""
        number %= self._count
        body = {"slice": {"spec": slice_spec(number, 0, 20 + turn % 200)}}
        return self._client.put(f"{API}/accounts/{account_of(number)}/slices/s{number}-0-x", json=body)

    def put_route(self, number: int, turn: int) -> Awaitable[httpx.Response]:
        """Another path."""
        number %= self._count
        body = {"route": {"spec": route_spec(number, 0, f"/{turn}")}}
        return self._client.put(f"{API}/accounts/{account_of(number)}/routes/r{number}-0", json=body)

    def read(self, number: int, _: int) -> Awaitable[httpx.Response]:
        """A route."""
        number %= self._count
        return self._client.get(f"{API}/accounts/{account_of(number)}/routes/r{number}-1")

    def list_slices(self, number: int) -> Awaitable[httpx.Response]:
        """All of an account."""
        return self._client.get(f"{API}/accounts/{account_of(number * OF_ACCOUNT % self._count)}/slices")


async def measure_calls(figures: Figures, calls: Calls) -> None:
    """One client alone, and fifty."""
    times = await timed(WRITES, lambda n: calls.put_slice(n * 7, n))
    figures.note_times("one write, a slice's endpoint", times, p99=15)
    figures.note_times("one write, a route", await timed(WRITES, lambda n: calls.put_route(n * 7, n)), p99=15)
    figures.note_times("one read", await timed(WRITES, lambda n: calls.read(n * 7, n)))
    what = f"an account's list of {OF_ACCOUNT * PARTS} slices"
    figures.note_times(what, await timed(20, calls.list_slices))
    for title, call, goal in (("writes", calls.put_route, 1000.0), ("reads", calls.read, 2000.0)):
        found = await rate(lambda which, turn, call=call: call(which * OF_ACCOUNT, turn))  # type: ignore[misc]
        figures.note(f"{title}, {CLIENTS} clients", found, "a second", goal, rate=True)


async def measure_watchers(figures: Figures, control: ControlProcess, calls: Calls, count: int) -> None:
    """A thousand streams, two of each workload node, of which each write touches two."""
    accounts = range(0, count, OF_ACCOUNT)
    places = [(account_of(number), f"n{i}") for number in accounts for i in range(1, 11)] * 2
    watchers = [Watcher(control, account, node) for account, node in places[:WATCHERS]]
    of_node: dict[tuple[str, str], list[Watcher]] = {}
    for watcher in watchers:
        of_node.setdefault((watcher.account, watcher.node), []).append(watcher)
    await open_all(control, watchers)
    times = await event_times(
        lambda n: calls.put_slice(n * 7, n + 100), lambda n: of_node[account_of(n * 7 % count), "n10"], EVENTS
    )
    figures.note_times(
        f"{len(watchers)} watchers: a write until those that it touches have it", times, p99=50
    )
    await close_all(watchers)


async def measure_idle(figures: Figures, control: ControlProcess, count: int) -> None:
    """Nodes that have nothing to do but to say so."""
    places = [(account_of(number), f"n{i}") for number in range(0, count, OF_ACCOUNT) for i in range(1, 11)]
    watchers = [Watcher(control, account, node) for account, node in places[:IDLE_NODES]]
    await open_all(control, watchers)
    await live_idle(watchers, 1.0)
    begun, used = time.monotonic(), processor_seconds(control)
    await live_idle(watchers, IDLE_SECONDS)
    share = (processor_seconds(control) - used) / (time.monotonic() - begun)
    figures.note(f"{len(watchers)} idle workload nodes", share * 100, "% of a core", 2)
    await close_all(watchers)


async def measure(figures: Figures, control: ControlProcess, count: int) -> None:
    """What clients find, while all is built and afterwards."""
    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    url = f"https://127.0.0.1:{control.port}"
    async with httpx.AsyncClient(
        base_url=url, auth=ADMIN, verify=tls(control), limits=limits, timeout=60
    ) as client:
        calls = Calls(client, count)
        times = await timed(WRITES, lambda n: calls.put_slice(n * 7, n))
        figures.note_times("one write, while all is built after a start", times, p99=15)
        await asyncio.to_thread(wait_until_idle, control, BUILT_SECONDS)
        figures.note("memory when all is built", memory(control), "MiB", 400)
        figures.note("processor time until then", processor_seconds(control), "s")
        await measure_calls(figures, calls)
        await measure_watchers(figures, control, calls, count)
        await measure_idle(figures, control, count)
    figures.note("memory at the end", memory(control), "MiB", 400)


def measure_store(directory: Path, location: StoreLocation, count: int) -> Figures:
    """All figures on one engine of the store."""
    figures, pieces = Figures(), directory / "pieces.json"
    directory.mkdir()
    control = ControlProcess(directory / "control", location, LOOP_FAULTS % str(pieces))
    control.prepare()
    fill(location, count)
    print(f"{count} gateways, {location.title}; load {Path('/proc/loadavg').read_text()[:14]}", flush=True)
    begun = time.perf_counter()
    control.start()
    try:
        figures.note("start to serving", time.perf_counter() - begun, "s", 10)
        figures.note("processor time of the start", processor_seconds(control), "s")
        figures.note("memory when it serves", memory(control), "MiB", 400)
        longest_piece(control, pieces)
        asyncio.run(measure(figures, control, count))
        piece = longest_piece(control, pieces)
        title = "longest piece of the loop that serves ADS, processor time"
        figures.note(title, piece.processor, "ms", 20)
        figures.note("of it in the kernel", piece.system, "ms")
        figures.note("of it looking for garbage", piece.garbage, "ms")
        figures.note("the longest by the clock", piece.clock, "ms")
        figures.note("the longest look for garbage of all threads", piece.longest, "ms", 20)
        figures.note("looking for garbage in all", piece.looks, "ms")
        print(f"  the piece was {piece.what}")
    finally:
        control.stop()
    return figures


def main() -> None:
    """Print the figures."""
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdigit()]
    count = numbers[0] if numbers else GATEWAYS
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        sqlite = measure_store(directory / "sqlite", StoreLocation(sqlite=directory / "store.db"), count)
        if "--etcd" not in sys.argv:
            return
        (directory / "server").mkdir()
        server = EtcdServer(directory / "server")
        server.start()
        try:
            etcd = measure_store(directory / "etcd", StoreLocation(etcd=server.settings()), count)
        finally:
            server.stop()
        print_ratios(sqlite, etcd)


if __name__ == "__main__":
    main()
