# SPDX-License-Identifier: Apache-2.0
"""An API that plays a cluster of two nodes, for playbooks that work on one after the other."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NODES = ("epic1", "epic2")


class Cluster:
    """Two nodes with an instance each, which drain and come back while they are looked at."""

    def __init__(self) -> None:
        self.instances = {name: ["Serving"] for name in NODES}
        self.drain = dict.fromkeys(NODES, False)
        self.unheard = dict.fromkeys(NODES, 0)
        """How often each is still to be looked at before a router hears it."""
        self.silent: set[str] = set()
        """Who has not reported for long, which is not noted yet: the control plane has just been started."""
        self.unheard_ok = False
        """Whether a drain was asked for whatever routers hear."""
        self.envoys = ["1.41.0"]
        """What its gateway runs when it is looked at, one time after the other; the last stays."""
        self.fails = ""
        """What is not done: the host and the work."""
        self.stays_lost = ""
        """The node whose instance does not come back when it is started anew."""
        self.removed: dict[str, int] = {}
        """How often a node that was deleted is still there when it is looked at."""
        self.done: list[str] = []

    def node(self, name: str) -> dict[str, Any]:
        phases = ["Serving", "Draining", "Withdrawn"] if self.drain[name] else ["Planned", "Serving"]
        now = self.instances[name][0]
        after = phases[min(phases.index(now) + 1, len(phases) - 1)] if now in phases else phases[0]
        if now not in ("lost", after):
            self.instances[name] = [after]
            if after in ("Withdrawn", "Serving"):
                self.done.append(f"{name} {after}")
        drained = "True" if self.instances[name] == ["Withdrawn"] else "False"
        conditions = [{"type": "Ready", "status": "True"}, {"type": "Drained", "status": drained}]
        if after == "Serving":
            heard = self.unheard[name] <= 0
            self.unheard[name] -= 1
            conditions.append({"type": "BGPEstablished", "status": "True" if heard else "False"})
        reported = datetime.now(UTC) - timedelta(minutes=5 if name in self.silent else 0)
        return {
            "metadata": {"name": name},
            "spec": {"address": "192.0.2.1", "schedulable": not self.drain[name], "drain": self.drain[name]},
            "status": {
                "phase": "Draining" if self.drain[name] else "Ready",
                "conditions": conditions,
                "instances": {self.instances[name][0]: 1},
                "last-report": reported.isoformat().replace("+00:00", "Z"),
            },
        }

    def gateway(self) -> dict[str, Any]:
        """A gateway with an instance on each node."""
        version = self.envoys.pop(0) if len(self.envoys) > 1 else self.envoys[0]
        self.done.append(f"gateway has {version}")
        instances = [{"node": name, "phase": "Serving", "envoy-version": version} for name in NODES]
        return {"metadata": {"namespace": "shop", "name": "web"}, "status": {"instances": instances}}

    def maintain(self, name: str, maintenance: dict[str, bool]) -> None:
        self.unheard_ok |= maintenance.get("unheard-ok", False)
        assert maintenance["schedulable"] is not maintenance["drain"]
        self.drain[name] = maintenance["drain"]
        self.done.append(f"{name} drain" if maintenance["drain"] else f"{name} resume")

    def delete(self, name: str, forced: bool) -> None:
        """A node that is deleted is drained first, and gone a little later; a lost one is so at once."""
        self.removed[name] = 0 if forced else 2
        self.done.append(f"{name} {'forget' if forced else 'delete'}")

    def is_gone(self, name: str) -> bool:
        """Whether the node is not there any more."""
        if name not in self.removed:
            return False
        self.removed[name] -= 1
        if self.removed[name] == 0:
            self.done.append(f"{name} gone")
        return self.removed[name] < 0

    def work(self, host: str, what: str) -> bool:
        """Whether work on a host succeeds; `restart` ends the node's instance, which comes back."""
        if self.fails == f"{host} {what}":
            return False
        self.done.append(f"{host} {what}")
        if what == "restart" and host in NODES and not self.drain[host]:
            self.instances[host] = ["lost" if self.stays_lost == host else "Planned"]
        return True

    def read(self, parts: list[str]) -> dict[str, Any] | None:
        """The object or collection at a path; None where there is none."""
        match parts:
            case ["nodes", name]:
                return {"node": self.node(name)}
            case ["nodes"]:
                return {"items": [*map(self.node, NODES)]}
            case ["accounts"]:
                return {"items": [{"metadata": {"name": "shop"}}]}
            case ["accounts", _, "proxies"]:
                return {"items": [self.gateway()]}
            case ["accounts", _, "groups"]:
                return {"items": []}
            case _:
                return None


def _handler_of(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, _ = self.path.partition("?")
            match path.split("/"):
                case ["", "deeds", host, what]:
                    self._reply({}, 200 if cluster.work(host, what) else 500)
                case [_, _, _, "nodes", name] if cluster.is_gone(name):
                    self._reply({}, 404)
                case [_, _, _, *parts]:
                    found = cluster.read(parts)
                    self._reply({} if found is None else found, 404 if found is None else 200)

        def do_DELETE(self) -> None:
            path, _, query = self.path.partition("?")
            cluster.delete(path.split("/")[4], query == "force=true")
            self._reply({})

        def do_PUT(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            cluster.maintain(self.path.split("/")[4], body["maintenance"])
            self._reply({})

        def _reply(self, body: dict[str, Any], status: int = 200) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serve(cluster: Cluster) -> Iterator[str]:
    """Where the cluster's API answers, for as long as the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(cluster))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
