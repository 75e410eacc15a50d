# SPDX-License-Identifier: Apache-2.0
"""What the real epic-control takes at full size: to start, in memory, a write, a read, with 50 clients.

1,000 gateways of 50 accounts, 10,000 routes, 10,000 slices with 100,000 endpoints, 20,000 tunnels. No node is
connected, and Envoy's validation is a program that accepts everything. `control.py [GATEWAYS]`
"""

from __future__ import annotations

import asyncio
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))

from control_process import ADMIN, API, ControlProcess

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


def rss(control: ControlProcess) -> float:
    """MiB."""
    status = Path(f"/proc/{control.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def quantiles(times: list[float]) -> str:
    ordered = sorted(times)
    p50, p99 = statistics.median(ordered) * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {ordered[-1] * 1e3:.0f} ms"


async def timed(calls: int, call: Callable[[int], Awaitable[httpx.Response]]) -> list[float]:
    times = []
    for number in range(calls):
        begun = time.perf_counter()
        reply = await call(number)
        times.append(time.perf_counter() - begun)
        assert reply.status_code in {200, 302}, reply.text
    return times


async def rate(call: Callable[[int, int], Awaitable[httpx.Response]]) -> tuple[float, int]:
    """Replies a second to 50 clients, and how many were refused."""
    done = refused = 0
    end = time.perf_counter() + SECONDS

    async def client(which: int) -> None:
        nonlocal done, refused
        turn = 0
        while time.perf_counter() < end:
            reply = await call(which, turn)
            turn += 1
            done += reply.status_code in {200, 302}
            refused += reply.status_code >= 400

    await asyncio.gather(*(client(which) for which in range(CLIENTS)))
    return done / SECONDS, refused


async def measure(control: ControlProcess, count: int) -> None:
    context = ssl.create_default_context(cafile=str(control.pki / "ca.crt"))
    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    url = f"https://127.0.0.1:{control.port}"
    async with httpx.AsyncClient(
        base_url=url, auth=ADMIN, verify=context, limits=limits, timeout=60
    ) as client:

        def put_slice(number: int, turn: int) -> Awaitable[httpx.Response]:
            number %= count
            body = {"slice": {"spec": slice_spec(number, 0, 20 + turn % 200)}}
            return client.put(f"{API}/accounts/{account_of(number)}/slices/s{number}-0-x", json=body)

        def put_route(number: int, turn: int) -> Awaitable[httpx.Response]:
            number %= count
            body = {"route": {"spec": route_spec(number, 0, f"/{turn}")}}
            return client.put(f"{API}/accounts/{account_of(number)}/routes/r{number}-0", json=body)

        def read(number: int, _: int) -> Awaitable[httpx.Response]:
            number %= count
            return client.get(f"{API}/accounts/{account_of(number)}/routes/r{number}-1")

        singles = (("write, a slice's endpoint", put_slice), ("write, a route", put_route), ("read", read))
        for what, call in singles:
            times = await timed(WRITES, lambda n, call=call: call(n * 7, n))  # type: ignore[misc]
            print(f"one {what}: {quantiles(times)}", flush=True)
        listed = await timed(20, lambda n: client.get(f"{API}/accounts/{account_of(n * 20 % count)}/slices"))
        print(f"an account's list of {OF_ACCOUNT * PARTS} slices: {quantiles(listed)}", flush=True)
        for what, call in (("writes", put_route), ("reads", read)):
            found, refused = await rate(lambda which, turn, call=call: call(which * OF_ACCOUNT, turn))  # type: ignore[misc]
            print(f"{what} a second, {CLIENTS} clients: {found:.0f} ({refused} refused)", flush=True)
    print(f"memory at the end: {rss(control):.0f} MiB")


def main() -> None:
    """Print the figures."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else GATEWAYS
    with tempfile.TemporaryDirectory() as directory:
        location = StoreLocation(sqlite=Path(directory) / "store.db")
        control = ControlProcess(Path(directory) / "control", location)
        control.prepare()
        fill(location, count)
        begun = time.perf_counter()
        control.start()
        seconds = time.perf_counter() - begun
        print(f"{count} gateways: start to serving {seconds:.1f} s, {rss(control):.0f} MiB", flush=True)
        try:
            asyncio.run(measure(control, count))
        finally:
            control.stop()


if __name__ == "__main__":
    main()
