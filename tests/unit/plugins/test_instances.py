# SPDX-License-Identifier: Apache-2.0
"""The plan of a node's instances: from what is wanted and found to actions, files and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.epic.gateway.plugins.module_utils._instances import (
    Found,
    Instance,
    parse_all,
    plan,
)

from epic.gatewayapi.names import AGENT_CLUSTER

WEB = Instance(
    gateway="root.web",
    account="root",
    node_id="epic-root.web",
    public_address="203.0.113.7",
    inside_address="100.64.0.1",
    inside_address6="fd65:7069:6300::6440:1",
    interface="epg64400001b78a",
    mtu=1452,
    envoy_version="1.40.0",
    concurrency=1,
)
OTHERS = {
    "public_address": "203.0.113.8",
    "inside_address": "100.64.0.2",
    "inside_address6": "fd65:7069:6300::6440:2",
}
DIRECTORY = "/etc/epic/gateways/root.web/"
UP = Found(files=WEB.files(), running=True, enabled=True, namespace=True)


def actions(wanted: list[Instance], found: dict[str, Found]) -> dict[str, str]:
    return {step.gateway: step.action for step in plan({item.gateway: item for item in wanted}, found)}


def options(**values: Any) -> dict[str, Any]:
    return {**WEB.__dict__, **values}


@pytest.mark.parametrize(
    ("wanted", "found", "action"),
    [
        pytest.param([WEB], {}, "create", id="new"),
        pytest.param(
            [WEB], {"root.web": Found({}, namespace=True)}, "create", id="only a namespace was left"
        ),
        pytest.param([WEB], {"root.web": UP}, "none", id="as wanted"),
        pytest.param([WEB], {"root.web": replace(UP, running=False)}, "start", id="stopped"),
        pytest.param([WEB], {"root.web": replace(UP, enabled=False)}, "start", id="not enabled"),
        pytest.param([WEB], {"root.web": replace(UP, namespace=False)}, "start", id="namespace gone"),
        pytest.param([replace(WEB, envoy_version="1.41.0")], {"root.web": UP}, "update", id="another Envoy"),
        pytest.param([replace(WEB, concurrency=2)], {"root.web": UP}, "update", id="more threads"),
        pytest.param([replace(WEB, mtu=1400)], {"root.web": UP}, "replace", id="another MTU"),
        pytest.param(
            [replace(WEB, inside_address="100.64.0.9")], {"root.web": UP}, "replace", id="another address"
        ),
        pytest.param(
            [WEB],
            {"root.web": replace(UP, files={DIRECTORY + "instance.json": "{"})},
            "replace",
            id="half a file was left",
        ),
        pytest.param([], {"root.web": UP}, "remove", id="no longer wanted"),
        pytest.param([], {"root.web": Found({}, running=True)}, "remove", id="unit without files"),
    ],
)
def test_one_gateway(wanted: list[Instance], found: dict[str, Found], action: str) -> None:
    assert actions(wanted, found) == {"root.web": action}


@pytest.mark.parametrize(
    ("wanted", "found", "action"),
    [
        pytest.param(replace(WEB, envoy_version="1.41.0"), UP, "deferred", id="another Envoy"),
        pytest.param(replace(WEB, mtu=1400), UP, "deferred", id="another MTU"),
        pytest.param(replace(WEB, mtu=1400), replace(UP, running=False), "replace", id="stopped"),
        pytest.param(WEB, UP, "none", id="as wanted"),
    ],
)
def test_what_may_not_be_restarted_is_deferred_while_it_runs(
    wanted: Instance, found: Found, action: str
) -> None:
    (step,) = plan({"root.web": wanted}, {"root.web": found}, untouched={"root.web"})
    assert step.action == action
    if action == "deferred":
        assert (step.changed, step.differences()) == (False, [])


def test_gateways_are_independent() -> None:
    other = replace(WEB, gateway="blue.api", interface="epg64400002458f")
    assert actions([other], {"root.web": UP}) == {"blue.api": "create", "root.web": "remove"}


def test_differences_name_the_files_that_differ() -> None:
    (step,) = plan({"root.web": replace(WEB, concurrency=2)}, {"root.web": UP})
    assert [path for path, _old, _new in step.differences()] == [
        "/etc/epic/gateways/root.web/instance.json",
        "/etc/epic/gateways/root.web/netns.env",
    ]


def test_the_namespace_learns_its_addresses() -> None:
    assert WEB.files()[DIRECTORY + "netns.env"].splitlines() == [
        "PUBLIC=203.0.113.7",
        "INSIDE=100.64.0.1",
        "INSIDE6=fd65:7069:6300::6440:1",
        "INTERFACE=epg64400001b78a",
        "MTU=1452",
        "ENVOY_VERSION=1.40.0",
        "CONCURRENCY=1",
    ]


def test_every_envoy_has_a_user_of_its_own() -> None:
    drop_in = WEB.files()["/etc/systemd/system/epic-envoy@root.web.service.d/user.conf"]
    assert drop_in.splitlines()[-2:] == ["[Service]", "User=epg64400001b78a"]


def test_envoy_takes_everything_from_the_agent() -> None:
    bootstrap = json.loads(WEB.files()[DIRECTORY + "bootstrap.yaml"])
    assert bootstrap["node"] == {"id": "epic-root.web", "cluster": "root"}
    assert bootstrap["admin"]["address"]["pipe"]["path"] == "/run/epic/gateways/root.web/admin.sock"
    assert bootstrap["dynamic_resources"]["ads_config"]["api_type"] == "DELTA_GRPC"
    assert "listeners" not in bootstrap["static_resources"]
    clusters = [cluster["name"] for cluster in bootstrap["static_resources"]["clusters"]]
    assert clusters == [AGENT_CLUSTER], "the name that nothing of a tenant can have"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"gateway": "web"}, "gateway is 'web'; it must be ACCOUNT.PROXY", id="no account"),
        pytest.param({"gateway": "root.../x"}, "it must be ACCOUNT.PROXY", id="path in the name"),
        pytest.param(
            {"gateway": f"{'a' * 20}.{'x' * 60}"},
            "has 81 characters; it may have 77",
            id="socket path too long",
        ),
        pytest.param(
            {"public_address": "203.0.113.7/24"}, "public_address is '203.0.113.7/24'", id="network"
        ),
        pytest.param({"inside_address": "::1"}, "it must be an IPv4 address", id="IPv6"),
        pytest.param({"inside_address6": "100.64.0.1"}, "it must be an IPv6 address", id="IPv4"),
        pytest.param({"inside_address6": "fe80::1%eth0"}, "without a zone", id="zone"),
        pytest.param({"inside_address6": "FD00::1"}, "in its shortest form", id="spelling"),
        pytest.param(
            {"interface": "eth0"}, "it must be epg and twelve hexadecimal digits", id="foreign interface"
        ),
        pytest.param({"envoy_version": "../../bin"}, "it must be an Envoy version", id="path in the version"),
        pytest.param({"mtu": 100}, "mtu is 100; it must be between 576 and 65535", id="MTU"),
        pytest.param({"concurrency": 0}, "concurrency is 0", id="no thread"),
    ],
)
def test_a_bad_option_is_refused(values: dict[str, Any], message: str) -> None:
    good = options(gateway="root.api", interface="epg64400002458f", **OTHERS)
    wanted, errors = parse_all([options(**values), good])
    assert message in errors[options(**values)["gateway"]]
    assert list(wanted) == ["root.api"], "the others are not held up"


@pytest.mark.parametrize(
    "option", ["gateway", "interface", "public_address", "alt_address", "inside_address", "inside_address6"]
)
def test_instances_share_nothing(option: str) -> None:
    web = options(alt_address="2001:db8::7")
    other = options(gateway="root.api", interface="epg64400002458f", **OTHERS)
    wanted, errors = parse_all([web, {**other, option: web[option]}])
    assert wanted == {}
    assert all(f"{option} {web[option]} is given to more than one" in e for e in errors.values())


def test_the_second_address_of_one_is_not_the_first_of_another() -> None:
    other = options(gateway="root.api", interface="epg64400002458f", **OTHERS)
    wanted, errors = parse_all(
        [options(alt_address="2001:db8::7"), {**other, "public_address": "2001:db8::7"}]
    )
    assert wanted == {}
    assert errors.keys() == {"root.web", "root.api"}


@pytest.mark.parametrize(
    ("public", "alt", "wrong"),
    [
        ("203.0.113.7", "", None),
        ("2001:db8::7", "", None),
        ("203.0.113.7", "2001:db8::7", None),
        ("2001:db8::7", "203.0.113.7", None),
        ("", "2001:db8::7", "public_address"),
        ("203.0.113.7", "203.0.113.8", "alt_address"),
        ("203.0.113.7", "2001:DB8::7", "alt_address"),
        ("203.0.113.7", "x y", "alt_address"),
    ],
)
def test_an_instance_has_one_address_or_one_of_each_family(public: str, alt: str, wrong: str | None) -> None:
    wanted, errors = parse_all([options(public_address=public, alt_address=alt)])
    assert (list(wanted), list(errors)) == (([], ["root.web"]) if wrong else (["root.web"], []))
    assert not wrong or f"{wrong} is " in errors["root.web"]


def test_its_namespace_and_its_units_know_both_addresses() -> None:
    dual = replace(WEB, alt_address="2001:db8::7")
    assert "PUBLIC=203.0.113.7 2001:db8::7\n" in dual.files()[DIRECTORY + "netns.env"]
    assert actions([dual], {"root.web": UP}) == {"root.web": "replace"}
    assert actions([dual], {"root.web": replace(UP, files=dual.files())}) == {"root.web": "none"}


def test_an_instance_with_one_address_is_described_as_ever_for_its_envoy_must_not_restart() -> None:
    assert "alt_address" not in json.loads(WEB.files()[DIRECTORY + "instance.json"])
