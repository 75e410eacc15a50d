"""A node's registration: what is sent, what is left as an operator set it; credentials and their secrecy."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.epic.gateway.plugins.module_utils._api import ApiError, Credential, parse_credential
from ansible_collections.epic.gateway.plugins.module_utils._nodes import Plan, plan, wanted_spec

WANTED = {"address": "172.30.11.2", "underlay-mtu": 1500}


@pytest.mark.parametrize(
    ("state", "current", "expected"),
    [
        pytest.param("present", None, Plan("put", {}, WANTED), id="new"),
        pytest.param("present", {"spec": WANTED}, Plan("none", WANTED, WANTED), id="as wanted"),
        pytest.param(
            "present",
            {"spec": {**WANTED, "underlay-mtu": 9000, "schedulable": False}},
            Plan(
                "put",
                {**WANTED, "underlay-mtu": 9000, "schedulable": False},
                {**WANTED, "schedulable": False},
            ),
            id="another MTU, cordoned by hand",
        ),
        pytest.param("absent", None, Plan("none", {}, {}), id="absent already"),
        pytest.param("absent", {"spec": WANTED}, Plan("delete", WANTED, {}), id="to be deleted"),
    ],
)
def test_plan(state: str, current: dict[str, Any] | None, expected: Plan) -> None:
    assert plan(state, WANTED, current) == expected


def test_an_address_is_compared_as_the_api_writes_it() -> None:
    values = dict.fromkeys(("management_address", "underlay_mtu", "capacity", "schedulable"))
    assert wanted_spec({**values, "address": "2001:DB8:0::1"}) == {"address": "2001:db8::1"}
    assert wanted_spec({**values, "address": "nonsense"}) == {"address": "nonsense"}


def test_options_that_are_not_given_are_not_sent() -> None:
    given = {"address": "172.30.11.2", "management_address": "10.99.0.12", "schedulable": False}
    values = {"underlay_mtu": None, "capacity": None, **given}
    assert wanted_spec(values) == {
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
