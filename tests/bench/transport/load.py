# SPDX-License-Identifier: Apache-2.0
"""Runs the load generators between the two ends of a network, on processors of their own."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from namespaces import Namespace
from networks import INSIDE, POD, Network

SOURCES = Path(__file__).parent
CLIENT_CPU, SERVER_CPU = 0, 1
_PORT = "7001"
_PATIENCE = 30


def compile_load(directory: Path) -> Path:
    """The generators as a program."""
    program = directory / "load"
    subprocess.run(["cc", "-O2", "-o", str(program), str(SOURCES / "load.c")], check=True)
    return program


class Load:
    """Loads of one length from the proxy to the pod."""

    def __init__(self, program: Path, seconds: float, pings: int) -> None:
        self._program, self._seconds, self._pings = str(program), str(seconds), str(pings)

    def datagrams(self, network: Network) -> dict[str, float]:
        """Datagrams of 64 bytes as fast as they can be sent."""
        sent, received = self._run(network, ["udp-sink", _PORT], ["udp-blast", self._seconds, "64"])
        lost = max(0.0, 1 - received["packets"] / sent["packets"])
        return {"kpps": received["packets"] / sent["seconds"] / 1000, "loss": lost * 100}

    def round_trips(self, network: Network) -> dict[str, float]:
        """One datagram after the other, both ends on one processor."""
        client = ["udp-ping", self._pings]
        found, _ = self._run(network, ["udp-echo", _PORT], client, server_cpu=CLIENT_CPU)
        return {"p50": found["p50"], "p99": found["p99"]}

    def streams(self, network: Network, count: int, reverse: bool = False) -> dict[str, float]:
        """TCP streams; `reverse` is from the pod to the proxy."""
        server, client = ["tcp-sink", _PORT, str(count)], ["tcp-blast", self._seconds, str(count)]
        return self._run(network, server, client, reverse=reverse)[1]

    def connections(self, network: Network) -> dict[str, float]:
        """Connect, one byte each way, close."""
        return self._run(network, ["connection-sink", _PORT], ["connections", self._seconds])[0]

    def _run(
        self,
        network: Network,
        server: list[str],
        client: list[str],
        server_cpu: int = SERVER_CPU,
        reverse: bool = False,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What client and server printed."""
        near, far, target = network.proxy, network.pod, POD
        if reverse:
            near, far, target = far, near, INSIDE
        serving = self._start(far, server_cpu, server)
        assert serving.stdout is not None
        try:
            serving.stdout.readline()
            sending = self._start(near, CLIENT_CPU, [client[0], str(target), _PORT, *client[1:]])
            sent, _ = sending.communicate(timeout=_PATIENCE)
            if sending.returncode:
                raise RuntimeError(f"{' '.join(client)} failed in the network {network.name}")
            time.sleep(0.05)  # what is on the way arrives
        finally:
            serving.terminate()
            received, _ = serving.communicate(timeout=_PATIENCE)
        return json.loads(sent), json.loads(received)

    def _start(self, namespace: Namespace, cpu: int, arguments: list[str]) -> subprocess.Popen[str]:
        with namespace:
            return subprocess.Popen([self._program, str(cpu), *arguments], stdout=subprocess.PIPE, text=True)
