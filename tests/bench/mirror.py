# SPDX-License-Identifier: Apache-2.0
"""The mirror of a Linux host at 10,000 objects, against a real API in a process of its own.

`python tests/bench/mirror.py [OBJECTS]`: passes that find nothing new, one pod moved, one route changed, an
application more or less, as milliseconds and requests, and as a ratio to the first pass after a restart, that
reads and lists all.
Client and server share the machine, which is noisy: medians of ROUNDS passes are printed.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from stores import open_store

from epic.api.access.auth import hash_password
from epic.api.app import create_app
from epic.api.context import Context
from epic.client import EpicClient
from epic.controller.linux import HostSettings, LinuxController
from epic.errors import EpicError
from epic.model.base import Metadata
from epic.model.resources import Node, User, UserSpec

OBJECTS = 10_000
GATEWAYS = 10
ROUNDS = 15
PASSWORD = "bench-password"
ACCOUNT = "/api/epic/accounts/shop"

CLASS = """\
apiVersion: puregw.epic-gateway.org/v1
kind: GatewayClassConfig
metadata: {{name: epic, namespace: shop}}
spec:
  epic: {{gateway-hostname: "127.0.0.1:{port}", service-account: shop, service-key: {password},
         user-namespace: shop, gateway-template: http, cluster-name: lab}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: epic}}
spec:
  controllerName: epic-gateway.org/puregw
  parametersRef: {{group: puregw.epic-gateway.org, kind: GatewayClassConfig, namespace: shop, name: epic}}
"""
GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw{number}, namespace: shop}}
spec:
  gatewayClassName: epic
  listeners: [{{name: http, protocol: HTTP, port: 80}}]
"""
APPLICATION = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: app{number}, namespace: shop}}
spec:
  parentRefs: [{{name: gw{gateway}}}]
  hostnames: [{hostname}]
  rules: [{{backendRefs: [{{name: app{number}, port: 80}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: app{number}, namespace: shop}}
spec: {{ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: app{number}, namespace: shop, labels: {{kubernetes.io/service-name: app{number}}}}}
addressType: IPv4
endpoints: [{{addresses: [{address}]}}]
ports: [{{name: http, port: 8080}}]
"""


class CountedClient(EpicClient):
    """Counts its requests; speaks without TLS to this machine."""

    count = 0

    def _json(self, method: str, path: str, body: Mapping[str, object] | None = None, **more: Any) -> Any:
        CountedClient.count += 1
        return super()._json(method, path, body, **more)


class Pass(NamedTuple):
    """Milliseconds until it was done, milliseconds of the mirror's processor time, and requests."""

    taken: float
    own: float
    requests: int


class NoEvents:
    """There are no runs here."""

    async def follow(self, run: str, *, live: bool) -> Any:
        """Nothing."""
        for item in ():
            yield item


def serve(database: Path, port: int) -> None:
    """The API over an empty store, until killed."""
    store = open_store(database)
    with store.transaction() as transaction:
        spec = UserSpec(password_hash=hash_password(PASSWORD), admin=True)
        transaction.create(User(metadata=Metadata(name="admin"), spec=spec))
        for i in (1, 2):
            node = {"metadata": {"name": f"epic{i}"}, "spec": {"address": f"192.0.2.{i}"}}
            transaction.create(Node.model_validate(node))
    context = Context(store=store, inside_pool=IPv4Network("100.64.0.0/10"), run_events=NoEvents())
    uvicorn.run(create_app(context), host="127.0.0.1", port=port, log_level="critical")


@contextmanager
def api(directory: Path) -> Iterator[int]:
    """A server process; yields its port when it answers and has the account."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, "--serve", str(directory / "epic.db"), str(port)]
    process = subprocess.Popen(command)
    try:
        admin = EpicClient(f"http://127.0.0.1:{port}", "admin", PASSWORD)
        _await(lambda: admin.get("/api/epic"))
        limits = {
            "proxyLimit": 1000,
            "workloadNodeLimit": 10000,
            "routeLimit": 20000,
            "sliceLimit": 20000,
            "bytesLimit": 1 << 30,
            "tunnelLimit": 100000,
            "endpointLimit": 1000000,
        }
        account = {"metadata": {"name": "shop"}, "spec": limits}
        admin.post("/api/epic/accounts", {"account": account})
        pool = {"pool": "203.0.113.0/24", "subnet": "203.0.113.0/24"}
        admin.put("/api/epic/service-prefixes/default", {"service-prefix": {"spec": {"public-pool": pool}}})
        admin.put(f"{ACCOUNT}/groups/http", {"group": {"spec": {"service-prefix": "default"}}})
        admin.post(f"{ACCOUNT}/users", {"user": {"name": "shop", "password": PASSWORD}})
        yield port
    finally:
        process.kill()
        process.wait()


def _await(check: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            check()
        except EpicError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


class Bench:
    """A directory of manifests, the controller that follows it, and passes that are timed."""

    def __init__(self, directory: Path, port: int) -> None:
        self.manifests = directory / "manifests"
        self.manifests.mkdir()
        self._port = port
        self._directory = directory
        self.controller = self.restarted()

    def restarted(self) -> LinuxController:
        """A controller as after a restart of its process."""
        at = self._directory
        controller = LinuxController(
            HostSettings(
                self.manifests, "lab", "node1", "192.168.50.11", None, at / "made.json", at / "status"
            )
        )
        client = CountedClient(f"http://127.0.0.1:{self._port}", "shop", PASSWORD)
        controller._client_of = lambda _: client  # type: ignore[method-assign]
        controller._mirror.observed._client_of = lambda _: client
        controller._mirror._writer._client_of = lambda _: client
        return controller

    def write(self, number: int, address: str = "192.168.50.11", hostname: str = "") -> Path:
        """An application's file: its route, Service and slice."""
        text = APPLICATION.format(
            number=number,
            gateway=number % GATEWAYS,
            hostname=hostname or f"app{number}.example.net",
            address=address,
        )
        path = self.manifests / f"app{number}.yaml"
        path.write_text(text)
        return path

    def passed(self, paths: set[Path] | None) -> Pass:
        """What one pass costs."""
        CountedClient.count = 0
        begin, busy = time.perf_counter(), time.process_time()
        if not asyncio.run(self.controller._resync(paths)):
            raise SystemExit(f"the pass failed: {sorted(self.controller._said)[:3]}")
        own = (time.process_time() - busy) * 1000
        return Pass((time.perf_counter() - begin) * 1000, own, CountedClient.count)


def measure(bench: Bench, objects: int) -> None:
    """Print all figures."""
    applications = objects // 3
    (bench.manifests / "class.yaml").write_text(CLASS.format(port=bench._port, password=PASSWORD))
    gateways = "---\n".join(GATEWAY.format(number=i) for i in range(GATEWAYS))
    (bench.manifests / "gateways.yaml").write_text(gateways)
    for number in range(applications):
        bench.write(number)
    print(f"{3 * applications + GATEWAYS + 2} objects in {applications + 2} files")
    filled = _say("everything made", [bench.passed(None)])
    bench.controller = bench.restarted()
    whole = _say("first pass after a restart (reads all, lists all)", [bench.passed(None)], filled)
    # Gateways are listed every now and then; that is not what is looked at here.
    bench.controller._mirror._set_due = lambda *_: None  # type: ignore[method-assign]
    for key in bench.controller._mirror._due:
        bench.controller._mirror._due[key] = float("inf")
    _say("nothing changed, all files looked at", [bench.passed(None) for _ in range(ROUNDS)], whole)
    _say("nothing changed, no file touched", [bench.passed(set()) for _ in range(ROUNDS)], whole)
    moved = [bench.passed({bench.write(7 * i, f"192.168.51.{i + 1}")}) for i in range(ROUNDS)]
    _say("one pod moved", moved, whole)
    _parts(bench)
    routes = [
        bench.passed({bench.write(7 * i, "192.168.51.9", f"x{i}.example.net")}) for i in range(2 * ROUNDS)
    ]
    _say("one route changed (and its pod)", routes[ROUNDS:], whole)
    _say(
        "one application more (route, slice)", [_added(bench, applications + i) for i in range(ROUNDS)], whole
    )
    _say("one application less", [_removed(bench, applications + i) for i in range(ROUNDS)], whole)


def _parts(bench: Bench) -> None:
    """The share of the request itself, and that of a bad document beside it."""
    client = bench.controller._client_of(None)  # type: ignore[arg-type]
    item = client.get(f"{ACCOUNT}/slices")["items"][0]
    path = f"{ACCOUNT}/slices/{item['metadata']['name']}"
    times = []
    for number in range(ROUNDS):
        endpoint = {**item["spec"]["endpoints"][0], "addresses": [f"192.168.52.{number + 1}"]}
        body = {"slice": {"spec": {**item["spec"], "endpoints": [endpoint]}}}
        begin = time.perf_counter()
        client.put(path, body)
        times.append((time.perf_counter() - begin) * 1000)
    client.put(path, {"slice": {"spec": item["spec"]}})
    _say("  of which the PUT", [Pass(t, 0, 1) for t in times])


def _added(bench: Bench, number: int) -> Pass:
    return bench.passed({bench.write(number)})


def _removed(bench: Bench, number: int) -> Pass:
    path = bench.manifests / f"app{number}.yaml"
    path.unlink()
    return bench.passed({path})


def _say(what: str, passes: list[Pass], whole: float = 0.0) -> float:
    times = [one.taken for one in passes]
    middle, own = statistics.median(times), statistics.median(one.own for one in passes)
    counts = sorted({one.requests for one in passes})
    requests = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    ratio = f"; 1 : {whole / middle:,.0f} to that after a restart" if whole else ""
    busy = f", the mirror's own processor time {own:,.1f} ms" if own else ""
    print(
        f"{what}: {middle:,.1f} ms (at most {max(times):,.1f}){busy}; {requests} requests{ratio}", flush=True
    )
    return middle


def main() -> None:
    """Measure, or serve."""
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]), int(sys.argv[3]))
        return
    objects = int(sys.argv[1]) if sys.argv[1:] else OBJECTS
    with tempfile.TemporaryDirectory() as name, api(Path(name)) as port:
        measure(Bench(Path(name), port), objects)


if __name__ == "__main__":
    main()
