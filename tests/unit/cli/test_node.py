# SPDX-License-Identifier: Apache-2.0
"""`epicctl node`: what it asks of the API, what it waits for and says, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from epic.cli.commands import node, waiting
from epic.cli.main import app
from epic.errors import Unavailable

Epicctl = Callable[..., Result]
PATH = "/api/epic/nodes/epic1"


def state(
    phase: str, *conditions: tuple[str, str, str], drain: bool = False, **instances: int
) -> dict[str, Any]:
    return {
        "metadata": {"name": "epic1"},
        "spec": {"address": "192.0.2.1", "schedulable": phase == "Ready", "drain": drain},
        "status": {
            "phase": phase,
            "instances": instances,
            "conditions": [{"type": t, "status": s, "message": m} for t, s, m in conditions],
        },
    }


READY = state("Ready", ("Ready", "True", ""), Serving=3)
DRAINING = state(
    "Draining", ("Drained", "False", "shop.web: 2 connections"), drain=True, Serving=1, Draining=2
)
DRAINED = state("Draining", ("Drained", "True", ""), drain=True, Withdrawn=3)
HOLDING = state("Ready", ("DropHeld", "True", "it was told to drop 3 of 3 gateways"), Serving=3)


UNHEARD = state("Ready", ("BGPEstablished", "False", "no router hears the node"), Serving=3)


class Cluster:
    """An API with one node, which takes the next of its states each time it is looked at; the last stays."""

    def __init__(self, *states: dict[str, Any] | Unavailable | None) -> None:
        self.states = list(states)
        self.written: list[tuple[str, str, Any]] = []

    def find(self, path: str) -> dict[str, Any] | None:
        assert path == PATH
        found = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(found, Unavailable):
            raise found
        return None if found is None else {"node": deepcopy(found)}

    def list_all(self, path: str) -> list[dict[str, Any]]:
        assert path == "/api/epic/nodes"
        return [s for s in self.states if isinstance(s, dict)]

    def put(self, path: str, body: Any) -> dict[str, Any]:
        self.written.append(("PUT", path, body))
        return {}

    def delete(self, path: str) -> dict[str, Any]:
        self.written.append(("DELETE", path, None))
        return {}


@pytest.fixture
def epicctl(
    epicctl_on: Callable[[Cluster], Epicctl], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Cluster], Epicctl]:
    clock = [0.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(waiting.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    return epicctl_on


def maintenance(**wanted: bool) -> tuple[str, str, Any]:
    asked = {name.replace("_", "-"): value for name, value in wanted.items()}
    return ("PUT", f"{PATH}/maintenance", {"maintenance": asked})


CORDON = {"schedulable": False}


DRAIN = maintenance(**CORDON, drain=True, unheard_ok=False)


def test_a_drain_may_do_without_routers_that_hear_other_nodes(
    epicctl: Callable[[Cluster], Epicctl],
) -> None:
    cluster = Cluster(READY, DRAINED)
    result = epicctl(cluster)("node", "drain", "epic1", "--unheard-ok")
    assert cluster.written == [maintenance(**CORDON, drain=True, unheard_ok=True)]
    assert result.exit_code == 0


def test_a_drain_that_waits_for_a_router_says_how_to_do_without(
    epicctl: Callable[[Cluster], Epicctl],
) -> None:
    result = epicctl(Cluster(READY, DRAINING))("node", "drain", "epic1", "--timeout", "5")
    assert result.exit_code == node.TIMED_OUT
    assert "--unheard-ok" in result.stderr


def test_cordon_leaves_a_drain_under_way_alone(epicctl: Callable[[Cluster], Epicctl]) -> None:
    cluster = Cluster(DRAINING)
    result = epicctl(cluster)("node", "cordon", "epic1")
    assert (result.exit_code, result.output) == (0, "node epic1 is cordoned\n")
    assert cluster.written == [maintenance(schedulable=False)]


def test_drain_says_each_change_once_and_ends_when_it_is_done(epicctl: Callable[[Cluster], Epicctl]) -> None:
    cluster = Cluster(READY, READY, DRAINING, DRAINING, DRAINED)
    result = epicctl(cluster)("node", "drain", "epic1")
    assert cluster.written == [DRAIN]
    assert (result.exit_code, result.output.splitlines()) == (
        0,
        [
            "epic1: Ready, 3 Serving",
            "epic1: Draining, 1 Serving, 2 Draining; waits for shop.web: 2 connections",
            "node epic1 is drained",
        ],
    )


def test_what_takes_too_long_goes_on_and_ends_with_a_status_of_its_own(
    epicctl: Callable[[Cluster], Epicctl],
) -> None:
    result = epicctl(Cluster(READY, DRAINING))("node", "drain", "epic1", "--timeout", "5")
    assert result.exit_code == node.TIMED_OUT
    assert "node epic1 is not drained after 5 s (Draining, 1 Serving, 2 Draining; " in result.stderr
    assert "waits for shop.web: 2 connections); it goes on" in result.stderr


def test_who_does_not_want_to_wait_need_not(epicctl: Callable[[Cluster], Epicctl]) -> None:
    result = epicctl(Cluster(READY, DRAINING))("node", "drain", "epic1", "--no-wait")
    assert (result.exit_code, result.output) == (0, "node epic1 drains\n")


def test_uncordon_waits_until_all_instances_serve(epicctl: Callable[[Cluster], Epicctl]) -> None:
    cluster = Cluster(DRAINED, DRAINED, state("Ready", Serving=1, Prepared=2), READY)
    result = epicctl(cluster)("node", "uncordon", "epic1")
    assert cluster.written == [maintenance(schedulable=True, drain=False)]
    assert result.output.splitlines()[-2:] == ["epic1: Ready, 2 Prepared, 1 Serving", "node epic1 is serving"]


def test_uncordon_waits_until_a_router_hears_the_node(epicctl: Callable[[Cluster], Epicctl]) -> None:
    result = epicctl(Cluster(DRAINED, DRAINED, UNHEARD, READY))("node", "uncordon", "epic1")
    assert result.output.splitlines()[-2:] == [
        "epic1: Ready, 3 Serving; not BGPEstablished: no router hears the node",
        "node epic1 is serving",
    ]


def test_a_control_plane_that_restarts_is_asked_again(epicctl: Callable[[Cluster], Epicctl]) -> None:
    cluster = Cluster(READY, DRAINING, Unavailable("no connection"), DRAINED)
    result = epicctl(cluster)("node", "drain", "epic1")
    assert result.exit_code == 0
    assert "epic1: no connection; trying again" in result.output


def test_removal_waits_until_the_node_is_gone(epicctl: Callable[[Cluster], Epicctl]) -> None:
    cluster = Cluster(READY, state("Removing", Draining=2), None)
    result = epicctl(cluster)("node", "remove", "epic1")
    assert cluster.written == [("DELETE", PATH, None)]
    assert result.output.splitlines() == ["epic1: Removing, 2 Draining", "node epic1 is removed"]


def test_a_removal_that_nobody_confirms_says_what_else_there_is(
    epicctl: Callable[[Cluster], Epicctl],
) -> None:
    silent = state("Removing", ("Ready", "False", "its agent is silent for 5m"), Draining=2)
    result = epicctl(Cluster(READY, silent))("node", "remove", "epic1")
    assert result.exit_code == node.TIMED_OUT
    assert "not Ready: its agent is silent for 5m" in result.stderr
    assert "epicctl node remove epic1 --force" in result.stderr


def test_a_lost_node_is_removed_by_force(epicctl: Callable[[Cluster], Epicctl]) -> None:
    cluster = Cluster(READY, None)
    assert epicctl(cluster)("node", "remove", "epic1", "--force").exit_code == 0
    assert cluster.written == [("DELETE", f"{PATH}?force=true", None)]


@pytest.mark.parametrize(
    ("answer", "options", "written"),
    [("n\n", (), 0), ("y\n", (), 1), ("", ("--yes",), 1)],
    ids=["no", "yes", "not asked"],
)
def test_removal_is_confirmed_on_a_terminal(
    epicctl: Callable[[Cluster], Epicctl],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    options: tuple[str, ...],
    written: int,
) -> None:
    monkeypatch.setattr(node, "at_terminal", lambda: True)
    cluster = Cluster(READY, None)
    result = epicctl(cluster)("node", "remove", "epic1", *options, input=answer)
    assert len(cluster.written) == written
    assert result.exit_code == (0 if written else 1)
    assert ("Node epic1 (3 Serving): drain and remove it?" in result.output) == (not options)


def test_a_held_drop_is_accepted(epicctl: Callable[[Cluster], Epicctl]) -> None:
    cluster = Cluster(HOLDING, HOLDING, state("Ready", ("DropHeld", "False", "")))
    result = epicctl(cluster)("node", "accept-drop", "epic1")
    assert cluster.written == [("PUT", f"{PATH}/accept-drop", {})]
    assert "epic1: Ready, 3 Serving; holds a drop: it was told to drop 3 of 3 gateways" in result.output
    assert result.exit_code == 0


def test_there_must_be_a_drop_to_accept(epicctl: Callable[[Cluster], Epicctl]) -> None:
    cluster = Cluster(READY)
    result = epicctl(cluster)("node", "accept-drop", "epic1")
    assert "node epic1 holds nothing back" in str(result.exception)
    assert not cluster.written


@pytest.mark.parametrize("command", ["cordon", "drain", "uncordon", "remove", "accept-drop"])
def test_a_node_that_there_is_not_is_named(epicctl: Callable[[Cluster], Epicctl], command: str) -> None:
    cluster = Cluster(None)
    assert "there is no node 'epic1'" in str(epicctl(cluster)("node", command, "epic1").exception)
    assert not cluster.written


def test_names_are_completed(epicctl: Callable[[Cluster], Epicctl], tmp_path: Path) -> None:
    epicctl(Cluster(READY))
    typed = {"COMP_WORDS": "epicctl node drain ep", "COMP_CWORD": "3", "_EPICCTL_COMPLETE": "complete_bash"}
    for config, completed in (("epicctl.yaml", "epic1"), ("none.yaml", "")):
        environment = typed | {"EPICCTL_CONFIG": str(tmp_path / config)}
        result = CliRunner().invoke(app, [], env=environment, prog_name="epicctl")
        assert (result.output.strip(), result.exit_code) == (completed, 0)
