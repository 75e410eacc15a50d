# SPDX-License-Identifier: Apache-2.0
"""A node as it should be: what is sent, what an operator keeps, what is waited for; credentials."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.epic.gateway.plugins.module_utils._api import ApiError, Credential, parse_credential
from ansible_collections.epic.gateway.plugins.module_utils._nodes import (
    NodeError,
    Plan,
    describe,
    is_reached,
    plan,
    wanted_spec,
)

REGISTERED = {"address": "172.30.11.2", "underlay-mtu": 1500}
CORDONED = {**REGISTERED, "schedulable": False}
DRAINED = {**CORDONED, "drain": True}
TO_DRAIN = {"schedulable": False, "drain": True, "unheard-ok": False}


def options(**given: Any) -> dict[str, Any]:
    names = ("address", "management_address", "underlay_mtu", "capacity", "schedulable", "drain")
    return {
        "name": "epic1",
        "state": "present",
        "force": False,
        "unheard_ok": False,
        **dict.fromkeys(names),
        **given,
    }


SITE = options(address="172.30.11.2", underlay_mtu=1500)


@pytest.mark.parametrize(
    ("wanted", "current", "expected"),
    [
        pytest.param(SITE, None, Plan("register", {}, REGISTERED, REGISTERED), id="new"),
        pytest.param(SITE, REGISTERED, Plan("none", REGISTERED, REGISTERED, {}), id="as wanted"),
        pytest.param(SITE, DRAINED, Plan("none", DRAINED, DRAINED, {}), id="drained by an operator"),
        pytest.param(
            SITE,
            {**CORDONED, "underlay-mtu": 9000},
            Plan("register", {**CORDONED, "underlay-mtu": 9000}, CORDONED, REGISTERED),
            id="another MTU, cordoned by an operator",
        ),
        pytest.param(
            options(drain=True),
            REGISTERED,
            Plan("maintain", REGISTERED, {**REGISTERED, **TO_DRAIN}, TO_DRAIN),
            id="to be drained",
        ),
        pytest.param(
            options(drain=True, unheard_ok=True),
            DRAINED,
            Plan(
                "maintain",
                DRAINED,
                {**DRAINED, "unheard-ok": True},
                {**TO_DRAIN, "unheard-ok": True},
            ),
            id="to be drained though no router hears the others",
        ),
        pytest.param(options(drain=True), DRAINED, Plan("none", DRAINED, DRAINED, {}), id="drains already"),
        pytest.param(
            options(drain=False, schedulable=True),
            DRAINED,
            Plan(
                "maintain",
                DRAINED,
                {**REGISTERED, "schedulable": True, "drain": False},
                {"schedulable": True, "drain": False},
            ),
            id="to work again",
        ),
        pytest.param(
            options(drain=False),
            DRAINED,
            Plan("maintain", DRAINED, {**CORDONED, "drain": False}, {"drain": False}),
            id="to serve again, and stay cordoned",
        ),
        pytest.param(
            options(drain=False, schedulable=True),
            REGISTERED,
            Plan("none", REGISTERED, REGISTERED, {}),
            id="works as usual",
        ),
    ],
)
def test_plan(wanted: dict[str, Any], current: dict[str, Any] | None, expected: Plan) -> None:
    assert plan(wanted, None if current is None else {"spec": current}) == expected


@pytest.mark.parametrize(
    ("force", "deleted", "action"),
    [(False, False, "delete"), (False, True, "none"), (True, False, "forget"), (True, True, "forget")],
)
def test_removal_is_asked_for_once_but_force_always_helps(force: bool, deleted: bool, action: str) -> None:
    metadata = {"deletionTimestamp": "2024-01-01T00:00:00Z"} if deleted else {}
    node = {"metadata": metadata, "spec": REGISTERED}
    assert plan(options(state="absent", force=force), node) == Plan(action, REGISTERED, {}, {})
    assert not plan(options(state="absent", force=force), None).changed


@pytest.mark.parametrize(
    ("wanted", "current", "words"),
    [
        (options(drain=True), None, "there is no node epic1; to register it, give its address"),
        (options(drain=True, schedulable=True), {"spec": REGISTERED}, "drain and schedulable are both true"),
        (SITE, {"metadata": {"deletionTimestamp": "x"}, "spec": REGISTERED}, "epic1 is being removed"),
    ],
)
def test_what_cannot_be_is_refused(wanted: dict[str, Any], current: Any, words: str) -> None:
    with pytest.raises(NodeError, match=words):
        plan(wanted, current)


def node(phase: str, drained: str = "False", **instances: int) -> dict[str, Any]:
    conditions = [{"type": "Drained", "status": drained, "message": "2 connections left"}]
    return {"status": {"phase": phase, "instances": instances, "conditions": conditions}}


@pytest.mark.parametrize(
    ("wanted", "found", "reached"),
    [
        pytest.param(options(state="absent"), node("Removing"), False, id="not gone yet"),
        pytest.param(options(state="absent"), None, True, id="gone"),
        pytest.param(options(drain=True), node("Draining", Draining=1, Withdrawn=1), False, id="drains"),
        pytest.param(options(drain=True), node("Draining", "True", Withdrawn=2), True, id="drained"),
        pytest.param(options(drain=False), node("Ready", Serving=1, Withdrawn=1), False, id="half back"),
        pytest.param(options(schedulable=True), node("Ready", Serving=2, Draining=0), True, id="back"),
        pytest.param(options(schedulable=True), node("Joining"), False, id="silent"),
        pytest.param(options(schedulable=False), node("Cordoned", Planned=1), True, id="cordoned"),
        pytest.param(SITE, node("Joining"), True, id="registered"),
    ],
)
def test_what_is_waited_for(wanted: dict[str, Any], found: dict[str, Any] | None, reached: bool) -> None:
    assert is_reached(wanted, found) is reached


def test_a_node_that_no_router_hears_is_back_only_for_who_says_so() -> None:
    found = node("Ready", Serving=2)
    found["status"]["conditions"].append({"type": "BGPEstablished", "status": "False"})
    assert not is_reached(options(schedulable=True), found)
    assert is_reached(options(schedulable=True, unheard_ok=True), found)


def test_a_wait_that_was_too_long_says_how_the_node_is() -> None:
    assert (
        describe(node("Draining", Serving=1, Draining=2))
        == "Draining, 1 Serving, 2 Draining; Drained is False: 2 connections left"
    )


def test_an_address_is_compared_as_the_api_writes_it() -> None:
    assert wanted_spec(options(address="2001:DB8:0::1")) == {"address": "2001:db8::1"}
    assert wanted_spec(options(address="nonsense")) == {"address": "nonsense"}


def test_options_that_are_not_given_are_not_sent() -> None:
    given = {"address": "172.30.11.2", "management_address": "10.99.0.12", "schedulable": False}
    assert wanted_spec(options(**given)) == {
        "address": "172.30.11.2",
        "management-address": "10.99.0.12",
        "schedulable": False,
    }


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("username: admin\npassword: p:w#1\n", id="plain"),
        pytest.param("server: https://x\nusername: 'admin'\npassword: \"p:w#1\"\n", id="epicctl's, quoted"),
    ],
)
def test_a_credential_is_read(text: str) -> None:
    assert parse_credential(text, "file") == Credential("admin", "p:w#1")


def test_a_file_without_a_credential_is_refused() -> None:
    with pytest.raises(ApiError, match="/etc/x holds no password; it needs the lines"):
        parse_credential("username: admin\n", "/etc/x")


def test_a_password_does_not_print() -> None:
    assert "p:w#1" not in repr(Credential("admin", "p:w#1"))
