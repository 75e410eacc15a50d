# SPDX-License-Identifier: Apache-2.0
"""The forced command of the runs' key: what it accepts, what it refuses, what it answers."""

from __future__ import annotations

import io
import json
import syslog
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.epic.gateway.plugins.module_utils import _instance_command as command
from ansible_collections.epic.gateway.plugins.module_utils._instance_command import (
    MAX_BYTES,
    MAX_INSTANCES,
    RequestError,
    parse_request,
)

INSTANCE: dict[str, Any] = {
    "gateway": "root.web",
    "account": "root",
    "node_id": "epic-root.web",
    "public_address": "203.0.113.7",
    "inside_address": "100.64.0.1",
    "inside_address6": "fd65:7069:6300::6440:1",
    "interface": "epg64400001",
    "mtu": 1452,
    "envoy_version": "1.40.0",
}
DEFAULTS = {"alt_address": "", "concurrency": 1, "may_restart": True}


def request(*instances: object, **others: object) -> dict[str, object]:
    return {"instances": list(instances), "check_mode": False, "diff": False, **others}


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in INSTANCE.items() if key != name}


def test_options_that_are_left_out_have_the_modules_defaults() -> None:
    parsed = parse_request(json.dumps(request(INSTANCE)).encode())
    assert parsed["instances"] == [{**INSTANCE, **DEFAULTS}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(b"rm -rf /", "is not JSON", id="a shell command"),
        pytest.param(b"\xff", "is not JSON", id="bytes"),
        pytest.param(b"[" * 100_000, "is not JSON", id="deep nesting"),
        pytest.param(b"[]", "must be an object with", id="a list"),
        pytest.param(b"{}", "must be an object with", id="nothing in it"),
        pytest.param(b" " * (MAX_BYTES + 1), "has more than", id="too long"),
        pytest.param(request(command="id"), "must be an object with", id="another key"),
        pytest.param(request(keep="root.web"), "keep must be a list", id="a text to keep"),
        pytest.param(request(keep=[1]), "keep must be a list of texts", id="a number to keep"),
        pytest.param(request(check_mode=1), "check_mode must be true or false", id="not a boolean"),
        pytest.param({**request(), "instances": {}}, "must be a list", id="no list"),
        pytest.param(request(*[{}] * (MAX_INSTANCES + 1)), "a list of at most", id="too many"),
        pytest.param(request("root.web"), r"instances\[0\] must be an object", id="a text"),
        pytest.param(request({**INSTANCE, "exec": "id"}), "unknown option 'exec'", id="unknown option"),
        pytest.param(request(without("mtu")), r"instances\[0\].mtu is missing", id="missing option"),
        pytest.param(request({**INSTANCE, "mtu": "1452"}), "must be of type int", id="a text for a number"),
        pytest.param(request({**INSTANCE, "mtu": True}), "must be of type int", id="a boolean for a number"),
        pytest.param(
            request({**INSTANCE, "account": ["root"]}), "must be of type str", id="a list for a text"
        ),
        pytest.param(request({**INSTANCE, "account": "x" * 256}), "more than 255", id="a long text"),
    ],
)
def test_a_request_that_is_not_a_list_of_instances_is_refused(text: object, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse_request(text if isinstance(text, bytes) else json.dumps(text).encode())


class Session:
    """A login with the runs' key."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.logged: list[str] = []
        self.runs: list[tuple[dict[str, Any], bool]] = []
        self._patch = monkeypatch
        self._capsys = capsys
        monkeypatch.setattr(syslog, "syslog", lambda _priority, text: self.logged.append(text))
        monkeypatch.setattr(command, "run_instances", self._ran)
        monkeypatch.setenv("SSH_CONNECTION", "198.51.100.9 50000 192.0.2.1 22")

    def _ran(self, params: dict[str, Any], check: bool, _run: object) -> dict[str, Any]:
        self.runs.append((params, check))
        return {"changed": False, "instances": [], "diff": []}

    def asks(self, text: str, asked: str = command.COMMAND) -> tuple[int, dict[str, Any]]:
        """Exit status and answer."""
        self._patch.setenv("SSH_ORIGINAL_COMMAND", asked)
        self._patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        status = command.main()
        return status, json.loads(self._capsys.readouterr().out)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Session:
    monkeypatch.setattr(command, "LOCK", str(tmp_path / "lock"))
    return Session(monkeypatch, capsys)


def test_a_list_of_instances_is_carried_out(session: Session) -> None:
    status, answer = session.asks(json.dumps(request(INSTANCE, check_mode=True)))
    assert (status, answer) == (0, {"changed": False, "instances": []})
    ((asked, check),) = session.runs
    assert (asked["instances"], check) == ([{**INSTANCE, **DEFAULTS}], True)
    assert asked["keep"] == []


def test_the_difference_is_answered_when_it_is_asked_for(session: Session) -> None:
    assert session.asks(json.dumps(request(INSTANCE, diff=True)))[1]["diff"] == []


@pytest.mark.parametrize(
    "asked", ["/bin/sh -c 'echo ~'", "id", f"{command.COMMAND}; id", "sftp", f" {command.COMMAND}"]
)
def test_another_command_is_refused_and_logged(session: Session, asked: str) -> None:
    status, answer = session.asks(json.dumps(request()), asked)
    assert status == 1
    assert answer["failed"]
    assert f"not for {asked!r}" in answer["msg"]
    assert session.logged == [f"refused 198.51.100.9: {answer['msg'].removeprefix('epic-instances: ')}"]
    assert session.runs == []


def test_a_bad_request_is_refused_and_logged(session: Session) -> None:
    status, answer = session.asks("id\n")
    assert (status, answer) == (1, {"failed": True, "msg": "epic-instances: the request is not JSON"})
    assert session.logged == ["refused 198.51.100.9: the request is not JSON"]


def test_an_earlier_run_that_is_at_work_is_waited_for(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_LOCK_SECONDS", 0.0)
    with command._alone():
        status, answer = session.asks(json.dumps(request()))
    assert status == 1
    assert "an earlier run is still at work" in answer["msg"]
    assert session.asks(json.dumps(request()))[0] == 0
