# SPDX-License-Identifier: Apache-2.0
"""The one command of the runs' key on a node: takes a list of instances as JSON, answers in JSON.

It runs on the node's own Python without Ansible, as sshd's forced command. Whoever has the key can say which
instances the node runs, and nothing else.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import syslog
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.epic.gateway.plugins.module_utils._instance_run import (
    INSTANCE_OPTIONS,
    run_instances,
)

COMMAND = "/usr/libexec/epic/epic-instances"
LOCK = "/run/epic/instances.lock"
MAX_BYTES = 4 << 20
MAX_INSTANCES = 4000
MAX_TEXT = 255

_LOCK_SECONDS = 60.0
_READ_SECONDS = 30
_PLAIN = {"str": str, "int": int, "bool": bool}
_SHOWN = 200
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


class RequestError(ValueError):
    """What was asked for is not what the key is for."""


def main() -> int:
    """Answer the request on standard input; the exit status says whether it was carried out."""
    try:
        request = _request()
    except RequestError as error:
        _log(str(error))
        answer = {"failed": True, "msg": f"epic-instances: {error}"}
    else:
        answer = _answer(request)
    json.dump(answer, sys.stdout)
    return 1 if answer.get("failed") else 0


def parse_request(text: bytes) -> dict[str, Any]:
    """The request: `instances`, each with all its options, `check_mode`, `diff`, and `keep`.

    Raises RequestError. Without `keep` nothing is to be kept.
    """
    if len(text) > MAX_BYTES:
        raise RequestError(f"the request has more than {MAX_BYTES} bytes")
    try:
        request = json.loads(text)
    except (ValueError, RecursionError):
        raise RequestError("the request is not JSON") from None
    if not isinstance(request, dict) or request.keys() - {"keep"} != {"instances", "check_mode", "diff"}:
        raise RequestError(
            "the request must be an object with instances, check_mode and diff, and perhaps keep"
        )
    for name in ("check_mode", "diff"):
        if not isinstance(request[name], bool):
            raise RequestError(f"{name} must be true or false")
    instances = request["instances"]
    if not isinstance(instances, list) or len(instances) > MAX_INSTANCES:
        raise RequestError(f"instances must be a list of at most {MAX_INSTANCES}")
    return {
        **request,
        "instances": [_instance(number, item) for number, item in enumerate(instances)],
        "keep": _kept(request.get("keep", [])),
    }


def _kept(names: object) -> list[str]:
    if not isinstance(names, list) or len(names) > MAX_INSTANCES:
        raise RequestError(f"keep must be a list of at most {MAX_INSTANCES}")
    if not all(isinstance(name, str) and len(name) <= MAX_TEXT for name in names):
        raise RequestError(f"keep must be a list of texts of at most {MAX_TEXT} characters")
    return names


def _instance(number: int, item: object) -> dict[str, Any]:
    place = f"instances[{number}]"
    if not isinstance(item, dict):
        raise RequestError(f"{place} must be an object")
    surplus = sorted(item.keys() - INSTANCE_OPTIONS.keys())
    if surplus:
        raise RequestError(f"{place} has the unknown option {surplus[0][:_SHOWN]!r}")
    return {name: _value(f"{place}.{name}", name, item) for name in INSTANCE_OPTIONS}


def _value(place: str, name: str, item: dict[str, Any]) -> object:
    option = INSTANCE_OPTIONS[name]
    if name not in item and option.get("required"):
        raise RequestError(f"{place} is missing")
    value = item.get(name, option.get("default"))
    expected = _PLAIN[option["type"]]
    # True is an integer to Python
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise RequestError(f"{place} must be of type {option['type']}")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise RequestError(f"{place} has more than {MAX_TEXT} characters")
    return value


def _request() -> dict[str, Any]:
    asked = os.environ.get("SSH_ORIGINAL_COMMAND", COMMAND)
    if asked != COMMAND:
        raise RequestError(f"the key of EPIC's runs is for {COMMAND} only, not for {asked[:_SHOWN]!r}")
    # nobody keeps the command waiting for ever
    signal.alarm(_READ_SECONDS)
    text = sys.stdin.buffer.read(MAX_BYTES + 1)
    signal.alarm(0)
    return parse_request(text)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        with _alone():
            answer = run_instances(request, request["check_mode"], _run)
    except OSError as error:
        return {"failed": True, "msg": str(error)}
    if not request["diff"]:
        answer.pop("diff", None)
    return answer


@contextmanager
def _alone() -> Iterator[None]:
    """Wait for an earlier run whose connection broke: it may be at work still."""
    end = time.monotonic() + _LOCK_SECONDS
    with Path(LOCK).open("w", encoding="utf-8") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeoutError(f"an earlier run is still at work here ({LOCK})") from None
                time.sleep(0.1)
        yield


def _run(command: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(
        command,
        capture_output=True,
        check=False,
        encoding="utf-8",
        errors="replace",
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout, done.stderr


def _log(message: str) -> None:
    client = os.environ.get("SSH_CONNECTION", "").split(" ")[0] or "a local user"
    syslog.openlog("epic-instances", syslog.LOG_PID, syslog.LOG_AUTH)
    syslog.syslog(syslog.LOG_WARNING, f"refused {client}: {message}")
