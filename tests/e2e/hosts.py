# SPDX-License-Identifier: Apache-2.0
"""The lab as the journeys see it: hosts reached by SSH, the REST API, and polling with a deadline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
INVENTORY = CHECKOUT / "inventories/lab/hosts.yml"
SSH_CONFIG = CHECKOUT / ".cache/lab/ssh/config"
CREDENTIAL = Path("/run/epic-lab/epicctl.yaml")
T = TypeVar("T")

REQUESTS = """
import http.client, json, sys, time
address, port, host = sys.argv[1], int(sys.argv[2]), sys.argv[3]
count, pause = int(sys.argv[4]), float(sys.argv[5])
for _ in range(count):
    begin = time.time()
    try:
        connection = http.client.HTTPConnection(address, port, timeout=2)
        connection.request("GET", "/", headers={"Host": host})
        reply = connection.getresponse()
        row = {"status": reply.status, "body": reply.read().decode()}
        connection.close()
    except OSError as error:
        row = {"status": 0, "body": str(error)}
    print(json.dumps(row | {"at": begin, "took": time.time() - begin}), flush=True)
    time.sleep(pause)
"""


_OPTIONS = (
    "-oBatchMode=yes",
    "-oConnectTimeout=5",
    "-oControlMaster=auto",
    "-oControlPersist=60",
    "-oControlPath=/run/epic-lab/e2e-%n",
)


class CommandFailed(AssertionError):
    """A command on a host ended with an error."""


@dataclass(frozen=True)
class Host:
    """A lab host."""

    name: str

    def ssh(self, command: str) -> list[str]:
        """The argument list that runs `command` there."""
        return ["ssh", "-F", str(SSH_CONFIG), *_OPTIONS, self.name, command]

    def run(self, command: str, *, stdin: str = "", timeout: float = 60, check: bool = True) -> str:
        """What `command` prints there."""
        done = subprocess.run(
            self.ssh(command), input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode:
            raise CommandFailed(f"{self.name}: {command}\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, command: str) -> subprocess.Popen[str]:
        """`command` running there, on a connection of its own; the caller ends it."""
        # A shared connection's process would hold the output open for others, after this one's end.
        alone = ["-oControlMaster=no", "-oControlPath=none"]
        return subprocess.Popen(
            [
                "ssh",
                "-F",
                str(SSH_CONFIG),
                "-oBatchMode=yes",
                "-oConnectTimeout=5",
                *alone,
                self.name,
                command,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def json(self, command: str) -> object:
        """The JSON that `command` prints there."""
        return json.loads(self.run(command))


@dataclass(frozen=True)
class Reply:
    """What one request got."""

    status: int
    at: float
    took: float
    backend: str = ""
    inside: str = ""
    text: str = ""


def read_reply(line: str) -> Reply:
    """The reply that a line of the request loop tells of."""
    row = json.loads(line)
    try:
        body = json.loads(row["body"])
    except ValueError:
        body = {}
    return Reply(
        row["status"], row["at"], row["took"], body.get("backend", ""), body.get("client", ""), row["body"]
    )


@dataclass(frozen=True)
class Target:
    """Where requests go."""

    address: str
    host: str
    port: int = 80


@dataclass
class Load:
    """Requests under way from the client; `stop` ends them and gives the replies."""

    process: subprocess.Popen[str]
    replies: list[Reply] = field(default_factory=list)

    def stop(self) -> list[Reply]:
        """Wait for the loop's end."""
        out, _ = self.process.communicate(timeout=120)
        return [read_reply(line) for line in out.splitlines() if line.startswith("{")]


@dataclass(frozen=True)
class Lab:
    """All hosts."""

    hosts: Mapping[str, Host]

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def request(self, target: Target, count: int, pause: float = 0.0) -> list[Reply]:
        """Send `count` requests from the client, each on a connection of its own."""
        return self.load(target, count, pause).stop()

    def load(self, target: Target, count: int, pause: float) -> Load:
        """The same in the background."""
        process = self["client"].start(
            f"python3 - {target.address} {target.port} {target.host} {count} {pause}"
        )
        assert process.stdin is not None
        process.stdin.write(REQUESTS)
        process.stdin.close()
        process.stdin = None
        return Load(process)


def run_site(*options: str) -> subprocess.CompletedProcess[str]:
    """Run site.yml on the lab; a run that fails raises nothing."""
    return run_playbook("site.yml", *options, timeout=300)


def run_playbook(playbook: str, *options: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the checkout on the lab, as run_site does."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(INVENTORY), playbook, *options],
        cwd=CHECKOUT,
        env=os.environ | {"ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def assert_done(done: subprocess.CompletedProcess[str]) -> None:
    """Fail with what a playbook's run said of what failed, and its end."""
    fatal = "\n".join(line for line in done.stdout.splitlines() if line.startswith(("fatal:", "failed:")))
    assert done.returncode == 0, f"{fatal}\n...\n{done.stdout[-3000:]}{done.stderr[-2000:]}"


def load_lab() -> Lab:
    """The lab of the inventory."""
    inventory = yaml.safe_load(INVENTORY.read_text())
    return Lab({name: Host(name) for name in inventory["all"]["children"]["lab_hosts"]["hosts"]})


def eventually(probe: Callable[[], T | None], *, within: float, what: str, every: float = 0.1) -> T:
    """The first truthy result of `probe`; an assertion error with `what` when the time is over."""
    deadline = time.monotonic() + within
    last: object = None
    while True:
        try:
            last = probe()
            if last:
                return last  # type: ignore[return-value]
        except CommandFailed as error:
            last = error
        assert time.monotonic() < deadline, f"{what}: not within {within} s; last seen: {last!r}"
        time.sleep(every)


def settled(lab: Lab, target: Target, count: int = 2, *, within: float = 30) -> Target:
    """The target, once the router's kernel has as many next hops for it."""

    def counted() -> bool:
        return lab["router"].run(f"ip route show {target.address}").count("via ") == count

    eventually(counted, within=within, what=f"{count} next hops for {target.address} in the router")
    return target


def eventually_gone(probe: Callable[[], list[str]], *, within: float, what: str) -> None:
    """Wait until `probe` finds nothing; an assertion error with what it still finds when the time is over."""
    deadline = time.monotonic() + within
    while left := probe():
        assert time.monotonic() < deadline, f"{what}: after {within} s there is still\n" + "\n".join(left)
        time.sleep(0.2)


def tally(replies: list[Reply]) -> str:
    """The replies in one line, for assertion messages."""
    return str(Counter((r.status, r.inside, r.backend or r.text[:60]) for r in replies))
