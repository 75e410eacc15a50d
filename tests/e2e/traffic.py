# SPDX-License-Identifier: Apache-2.0
"""Traffic from the lab's client while something is done to the cluster, and what the router did meanwhile."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hosts import Lab, Target
from router_watch import Moved

LOAD = Path(__file__).with_name("client_load.py")
WATCH = Path(__file__).with_name("router_watch.py")
RATE = 300
"""Requests a second on connections of their own, where nothing else is said."""


@dataclass(frozen=True)
class Failure:
    """A request without a 200: the client's port, when its connection was begun, and when it was given up."""

    port: int
    opened: float
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
    """Kept connections that ended when the last answer had said so."""
    dropped: int = 0
    """Those that ended without a word between two requests."""
    stalled: float = 0.0
    """Seconds in which the client's process did not run: the machine had no time for it."""
    failures: list[Failure] = field(default_factory=list)
    next_hops: list[tuple[float, int]] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    logs: str = ""
    """What the EPIC nodes' Envoys and agents said meanwhile, where something failed."""

    @property
    def rehashed(self) -> list[Failure]:
        """Failures of connections of which the router had led packets to another node before."""
        return [failure for failure in self.failures if any(_is_of(moved, failure) for moved in self.moved)]


def _is_of(moved: Moved, failure: Failure) -> bool:
    # The lab's hosts have one clock; a connection's SYN leaves after it was begun.
    return moved.port == failure.port and failure.opened <= moved.opened and moved.at <= failure.at


@contextmanager
def traffic(lab: Lab, target: Target, rate: int = RATE, connections: int = 200) -> Iterator[Seen]:
    """Requests for as long as the block runs."""
    seen = Seen()
    begun = time.time()
    watch = _start(lab, "router", WATCH, target.address)
    load = _start(lab, "client", LOAD, f"{target.address} {target.port} {target.host} {rate} {connections}")
    try:
        yield seen
    finally:
        said, watched = _end(load), _end(watch)
        assert watched["lost"] == 0, f"{watched['lost']} packets were not seen on the router"
        seen.sent, seen.answered, seen.closed = said["sent"], said["answered"], said["closed"]
        seen.dropped, seen.stalled = said["dropped"], said["stalled"]
        seen.failures = [Failure(**failure) for failure in said["failures"]]
        seen.next_hops = [(at, count) for at, count in watched["next_hops"]]
        seen.moved = [Moved(**moved) for moved in watched["moved"]]
        if seen.failures or seen.dropped:
            seen.logs = _logs(lab, begun)


def _logs(lab: Lab, since: float) -> str:
    units = "-u 'epic-envoy@*' -u 'epic-netns@*' -u epic-agent -u bird"
    command = f"journalctl -q -o short-unix --since @{since:.0f} --no-pager {units} | tail -n 60"
    return "".join(f"-- {node}\n{lab[node].run(command, check=False)}" for node in ("epic1", "epic2"))


def _start(lab: Lab, host: str, script: Path, arguments: str) -> subprocess.Popen[str]:
    process = lab[host].start(f"python3 -u -c {shlex.quote(script.read_text())} {arguments}")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _end(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=60)
    said: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return said


def none_broken(seen: Seen) -> None:
    """No request was without a 200, and no connection ended before the server had announced it."""
    assert not seen.failures, describe(seen)
    assert not seen.dropped, describe(seen)


def describe(seen: Seen) -> str:
    """For assertion messages."""
    kinds = dict(Counter(f.kind for f in seen.failures))
    hops = " ".join(f"{at:.2f}:{count}" for at, count in seen.next_hops)
    rows = "\n".join(
        f"{f.at:.2f} {f.kind} port={f.port} opened={f.opened:.2f} kept={f.kept} {f.text}"
        for f in seen.failures[:20]
    )
    return (
        f"{seen.sent} sent, {seen.answered} answered, {seen.closed} closed and {seen.dropped} dropped "
        f"by the server, "
        f"the client did not run for {seen.stalled:.1f} s, "
        f"{len(seen.moved)} connections led elsewhere by the router; {len(seen.failures)} failures {kinds}, "
        f"{len(seen.rehashed)} of those connections; "
        f"next hops {hops}\n{rows}\n{seen.logs}"
    )
