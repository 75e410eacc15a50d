# SPDX-License-Identifier: Apache-2.0
"""Requests from the host `client`: one SSH session, in which a small loop does as told."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from lab import StepFailed, shown_ssh, ssh

# Runs on the host `client`, which has Python and nothing of EPIC. A job and a reply are a line of JSON each.
LOOP = """
import http.client, json, sys, time

def request(job, connect):
    begin = time.monotonic()
    try:
        connection = http.client.HTTPConnection(job["address"], job["port"], timeout=connect)
        connection.connect()
        connection.sock.settimeout(2)
        connection.request("GET", "/", headers={"Host": job["host"]})
        reply = connection.getresponse()
        row = {"status": reply.status, "body": reply.read().decode("utf-8", "replace")}
        connection.close()
    except (OSError, http.client.HTTPException) as error:
        row = {"status": 0, "body": str(error) or type(error).__name__}
    return row | {"took": time.monotonic() - begin}

print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    end = time.monotonic() + job["seconds"]
    if job["count"]:
        for _ in range(job["count"]):
            print(json.dumps(request(job, 1.0)), flush=True)
        continue
    while True:
        row = request(job, 0.1)
        if row["status"] == 200 or time.monotonic() > end:
            break
        time.sleep(0.01)
    print(json.dumps(row), flush=True)
"""


@dataclass(frozen=True)
class Target:
    """Where requests go."""

    address: str
    port: int
    host: str


@dataclass(frozen=True)
class Reply:
    """What a request got; `inside` is the address from which the backend was asked."""

    status: int
    took: float
    backend: str
    inside: str
    text: str

    @classmethod
    def of(cls, row: dict[str, Any]) -> Reply:
        """A reply as the loop tells it."""
        try:
            seen = json.loads(row["body"])
        except ValueError:
            seen = {}
        seen = seen if isinstance(seen, dict) else {}
        return cls(row["status"], row["took"], seen.get("backend", ""), seen.get("client", ""), row["body"])


class Client:
    """The loop on the client."""

    def __init__(self, host: str = "client") -> None:
        self._host = host
        self._process = subprocess.Popen(
            ssh(host, f"python3 -u -c {shlex.quote(LOOP)}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        self._line()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()

    def first(self, target: Target, seconds: float) -> Reply:
        """Ask until the answer is 200 or the time is over; the last reply."""
        self._tell(target, 0, seconds)
        return Reply.of(self._line())

    def many(self, target: Target, count: int) -> list[Reply]:
        """That many requests, each on a connection of its own."""
        self._tell(target, count, 0)
        return [Reply.of(self._line()) for _ in range(count)]

    def _tell(self, target: Target, count: int, seconds: float) -> None:
        if self._process.stdin is None:
            raise RuntimeError("the session has no input")
        job = {"address": target.address, "port": target.port, "host": target.host}
        self._process.stdin.write(json.dumps({**job, "count": count, "seconds": seconds}) + "\n")
        self._process.stdin.flush()

    def _line(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            self._process.wait(timeout=5)
            said = self._process.stderr.read().strip() if self._process.stderr else ""
            raise StepFailed(f"the session on {self._host} ended: {said}", shown_ssh(self._host, "true"))
        found: dict[str, Any] = json.loads(line)
        return found


def since(begin: float) -> float:
    """Seconds since `begin`."""
    return time.monotonic() - begin
