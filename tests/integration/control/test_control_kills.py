# SPDX-License-Identifier: Apache-2.0
"""epic-control that is killed under writes has all that it acknowledged when it is there again.

`EPIC_CONTROL_KILLS=300` kills more often.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from typing import Any

import httpx
from control_process import ACCOUNT, API, ControlProcess

from epic.store.location import StoreLocation

_KILLS = int(os.environ.get("EPIC_CONTROL_KILLS", "6"))
_WRITERS = 4
_MOST_WRITES = 60
ROUTES = f"{API}/accounts/{ACCOUNT}/routes"
PROXIES = f"{API}/accounts/{ACCOUNT}/groups/g/proxies"


def gateway(uid: str) -> dict[str, Any]:
    listeners = [{"name": "http", "port": 80, "protocol": "HTTP"}]
    spec = {
        "clientRef": {"clusterID": "c1", "namespace": "shop", "name": uid, "uid": uid},
        "display-name": uid,
        "public-ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 0}],
        "gateway": {"gatewayClassName": "k", "listeners": listeners},
    }
    return {"proxy": {"spec": spec}}


def route(uid: str, number: int) -> dict[str, Any]:
    rule = {"backendRefs": [{"kind": "Service", "name": "s", "port": 80}]}
    http = {"parentRefs": [{"name": "G"}], "hostnames": [f"n{number}.example"], "rules": [rule]}
    return {"route": {"spec": {"clientRef": {"clusterID": "c1", "uid": uid}, "http": http}}}


def number_of(client: httpx.Client, uid: str) -> int:
    found = client.get(f"{ROUTES}/{uid}").json()["route"]["spec"]["http"]["hostnames"][0]
    return int(found.removeprefix("n").removesuffix(".example"))


class Writers:
    """Each brings its own route to the next number, without end, and makes a gateway now and then."""

    def __init__(self, control: ControlProcess, acknowledged: dict[str, int], gateways: set[str]) -> None:
        self._control = control
        self.acknowledged = acknowledged
        self.gateways = gateways
        self._written = 0
        self._enough = threading.Condition()
        self._threads = [threading.Thread(target=self._write, args=(f"R{i}",)) for i in range(_WRITERS)]

    def run_until(self, writes: int, kill: Callable[[], None]) -> None:
        """Write so often, then kill; ends when all writers have noticed."""
        for thread in self._threads:
            thread.start()
        with self._enough:
            assert self._enough.wait_for(lambda: self._written >= writes, timeout=240)
        kill()
        for thread in self._threads:
            thread.join()

    def _write(self, uid: str) -> None:
        try:
            with self._control.client() as client:
                while True:
                    self._bring_on(client, uid)
        except httpx.TransportError:
            return

    def _bring_on(self, client: httpx.Client, uid: str) -> None:
        number = self.acknowledged[uid] + 1
        if number == 1:
            reply = client.post(ROUTES, json=route(uid, number))
        else:
            reply = client.put(f"{ROUTES}/{uid}", json=route(uid, number))
        assert reply.status_code == 302, reply.text
        self.acknowledged[uid] = number
        if number % 10 == 0:
            name = f"{uid}-{number}"
            if client.post(PROXIES, json=gateway(name)).status_code == 302:
                self.gateways.add(name)
        with self._enough:
            self._written += 1
            self._enough.notify()


def test_what_was_acknowledged_is_there_after_kills_at_any_moment(
    start: Callable[[StoreLocation], ControlProcess], location: StoreLocation
) -> None:
    control = start(location)
    with control.client() as client:
        assert client.post(PROXIES, json=gateway("G")).status_code == 302
    dice = random.Random(7)
    acknowledged = {f"R{i}": 0 for i in range(_WRITERS)}
    gateways = {"G"}
    for _ in range(_KILLS):
        writers = Writers(control, acknowledged, gateways)
        writers.run_until(dice.randrange(_MOST_WRITES), control.kill)
        control.start()
        with control.client() as client:
            there = {item["metadata"]["name"] for item in client.get(ROUTES).json()["items"]}
            for uid, number in acknowledged.items():
                if uid not in there:
                    assert number == 0
                    continue
                found = number_of(client, uid)
                assert number <= found <= number + 1
                acknowledged[uid] = found
            listed = client.get(f"{API}/accounts/{ACCOUNT}/proxies").json()["items"]
            assert gateways <= {item["metadata"]["name"] for item in listed}
            taken = [item["spec"]["public-address"] for item in listed]
            assert len(set(taken)) == len(taken), "an address was given to two"
    assert sum(acknowledged.values()) > _KILLS
