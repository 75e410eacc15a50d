# SPDX-License-Identifier: Apache-2.0
"""Traffic from the lab's client while something is done to the cluster, and what the router did meanwhile."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hosts import Lab, Target

LOAD = Path(__file__).with_name("client_load.py")

REHASH_SECONDS = 1.5
"""A kept-alive connection speaks twice a second: so late it notices that the router leads it elsewhere."""

# Prints the time at which the number of next hops changes.
WATCH = """
import subprocess, sys, time
last = None
while True:
    found = subprocess.run(["ip", "route", "show", sys.argv[1]], capture_output=True, text=True).stdout
    if found != last:
        print(time.time(), found.count("via "), flush=True)
        last = found
    time.sleep(0.02)
"""


@dataclass(frozen=True)
class Failure:
    """A request without a 200: when it began, and when it was given up."""

    began: float
    at: float
    kind: str
    kept: bool
    text: str


@dataclass
class Seen:
    """What the client and the router saw; filled in when the traffic ends."""

    sent: int = 0
    answered: int = 0
    closed: int = 0
    failures: list[Failure] = field(default_factory=list)
    next_hops: list[tuple[float, int]] = field(default_factory=list)

    @property
    def rehashed(self) -> list[Failure]:
        """Failures of connections that the router led to another node: those that fall on a change of its.

        Most are reset. One whose last packets crossed the change may wait in vain instead.
        """
        changes = [at for at, _ in self.next_hops[1:]]
        return [
            failure
            for failure in self.failures
            if not failure.kind.isdigit()
            and any(failure.began <= at + REHASH_SECONDS and at <= failure.at for at in changes)
        ]

    @property
    def failed(self) -> list[Failure]:
        """The other failures."""
        rehashed = self.rehashed
        return [failure for failure in self.failures if failure not in rehashed]


@contextmanager
def traffic(lab: Lab, target: Target, rate: int = 300, connections: int = 50) -> Iterator[Seen]:
    """Requests for as long as the block runs."""
    seen = Seen()
    watcher = lab["router"].start(f"python3 -u -c {shlex.quote(WATCH)} {target.address}")
    arguments = f"{target.address} {target.port} {target.host} {rate} {connections}"
    load = lab["client"].start(f"python3 -u -c {shlex.quote(LOAD.read_text())} {arguments}")
    assert load.stdout is not None
    assert load.stdout.readline() == "ready\n"
    try:
        yield seen
    finally:
        out, _ = load.communicate(timeout=60)
        # ended there: of a shared connection, what is killed here goes on there and holds its output
        lab["router"].run("pkill -f '[p]ython3 -u -c' || true")
        routes, _ = watcher.communicate(timeout=60)
        _fill(seen, out, routes)


def _fill(seen: Seen, out: str, routes: str) -> None:
    said = json.loads(out.strip().splitlines()[-1])
    seen.sent, seen.answered, seen.closed = said["sent"], said["answered"], said["closed"]
    seen.failures = [Failure(**failure) for failure in said["failures"]]
    seen.next_hops = [(float(at), int(count)) for at, count in (line.split() for line in routes.splitlines())]


def describe(seen: Seen) -> str:
    """For assertion messages."""
    hops = " ".join(f"{at:.2f}:{count}" for at, count in seen.next_hops)
    rows = "\n".join(f"{f.at:.2f} {f.kind} kept={f.kept} {f.text}" for f in seen.failures[:20])
    return (
        f"{seen.sent} sent, {seen.answered} answered, {seen.closed} closed by the server, "
        f"{len(seen.rehashed)} led elsewhere by the router, {len(seen.failed)} failed; "
        f"next hops {hops}\n{rows}"
    )
