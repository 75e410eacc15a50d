# SPDX-License-Identifier: Apache-2.0
"""What there is to see of a connection while it is silent: for a hang that comes once in many runs."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from dataclasses import asdict

from bed import Bed
from namespaces import Namespace

_MOST = 5
_STATISTICS = ("TcpRetransSegs", "TcpOutRsts", "TcpExtTCPTimeouts", "TcpExtTCPChallengeACK")


class Silences:
    """`Load(..., hear=Silences(bed).tell)` prints it, of the first ones."""

    def __init__(self, bed: Bed) -> None:
        self._bed, self._told = bed, 0

    def tell(self, line: str) -> None:
        """Of the connection of that line, which begins with the client's port."""
        self._told += 1
        if self._told > _MOST:
            return
        print(f"silent: {line}")
        port = line.split(maxsplit=1)[0]
        ends = {"client": self._bed.client} | {f"instance {n.index}": n.instance for n in self._bed.nodes}
        for name, namespace in ends.items():
            print(f"  {name}:", _see(namespace, "ss", "-tinmoaH", f"sport = :{port} or dport = :{port}"))
            print(f"  {name}:", _see(namespace, "nstat", "-asz", *_STATISTICS))
        for node in self._bed.nodes:
            counted = Counter[str]()
            for counters in dict(node.plane.second_chance_counters()).values():
                counted.update(asdict(counters))
            print(f"  node {node.index}:", dict(+counted), dict(+Counter(node.plane.drop_counters())))


def _see(namespace: Namespace, *command: str) -> str:
    """What it prints there, in one line. This thread stays where it is, for a test may be there just now."""
    inside = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{namespace.fd}", *command]
    done = subprocess.run(inside, capture_output=True, text=True, check=False)
    return " ".join((done.stdout or done.stderr).split())
