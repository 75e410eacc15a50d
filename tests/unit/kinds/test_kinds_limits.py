# SPDX-License-Identifier: Apache-2.0
"""Limits of what clients write: at a limit all is well; beyond, the error says where and what is right."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kind_samples import content
from pydantic import TypeAdapter

from epic.errors import Invalid
from epic.kinds import validation
from epic.kinds.field_limits import limits_of
from epic.kinds.kind import Kind
from epic.kinds.registry import GW_ENDPOINT_SLICE, GW_PROXY, GW_ROUTE, KINDS, LB_SERVICE_GROUP
from epic.kinds.validation import MOST_BYTES, explain, refuse_invalid, validate
from epic.model.gatewayapi import HTTPRouteSpec
from epic.model.values.limits import Items, Limit, Text

Json = dict[str, Any]
WRITTEN = [kind for kind in KINDS if kind.writer != "epic"]


def faults(kind: Kind[Any], body: Json) -> list[str]:
    return [str(error) for error in validate(kind, kind.model.model_validate(body))]


def each_limit() -> list[Any]:
    return [
        pytest.param(kind, path, limit, id=f"{kind.name}-{path}-{type(limit).__name__}")
        for kind in WRITTEN
        for path, limit in limits_of(kind.model).items()
        if path.startswith("spec.")
    ]


def put(body: Any, path: str, change: Callable[[Any], Any]) -> str:
    """Change what is at a path of a body, in the first of items; returns the path with that one's number."""
    parts = path.replace("[]", ".0").split(".")
    for i, part in enumerate(parts[:-1]):
        if part == "0" and isinstance(body, dict):
            parts[i] = next(iter(body))
        body = body[int(part)] if isinstance(body, list) else body[parts[i]]
    last: Any = int(parts[-1]) if isinstance(body, list) else parts[-1]
    body[last] = change(body[last])
    return ".".join(parts)


def many(value: Any, count: int) -> Any:
    """So many different items like the first one."""
    if isinstance(value, dict):
        (first,) = value.values()
        return {f"n{i}": first for i in range(count)}
    found = [deepcopy(value[0]) for _ in range(count)]
    for i, item in enumerate(found):
        if isinstance(item, dict) and "protocol" in item:
            item["name"] = f"l{i}"
    return found


def text(value: str, length: int) -> str:
    """A text of that length which begins as the value does and is as right as it is."""
    return (value + "a" * length)[:length] if length else ""


@pytest.mark.parametrize(("kind", "path", "limit"), each_limit())
def test_a_limit_holds_at_its_border(kind: Kind[Any], path: str, limit: Limit) -> None:
    for size, expected in ((limit.most - 1, True), (limit.most, True), (limit.most + 1, False)):
        body = content(kind)
        if isinstance(limit, Items):
            where = put(body, path, lambda value, size=size: many(value, size))
            wrong = f"{where}: {size} {limit.what}; at most {limit.most} are possible"
        else:
            where = put(body, path, lambda value, size=size: text(value, size))
            wrong = f"{where}: it has {size} characters, and should have "
        found = faults(kind, body)
        if expected:
            # So many of some things are as a whole more than an object may have.
            assert [fault for fault in found if "bytes as JSON" not in fault] == []
        else:
            assert len(found) == 1
            assert found[0].startswith(wrong)


@pytest.mark.parametrize(("kind", "path", "limit"), each_limit())
def test_a_text_has_its_least_characters(kind: Kind[Any], path: str, limit: Limit) -> None:
    if not isinstance(limit, Text):
        return
    body = content(kind)
    where = put(body, path, lambda _: "")
    needed = f"{where}: it has 0 characters, and should have {limit.least} to {limit.most}"
    assert faults(kind, body) == ([needed] if limit.least else [])


@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        (
            "spec.http.hostnames[]",
            ["a", "a.b", "*.a.b", "A.Example", "a-b.c", "1.2.3.4"],
            ["*", "*.", "a..b", "a.", "-a.b", "a_b.c", "a b", "a.b:80", "*.*.a", "a.*", "é.b", "a\n"],
        ),
        (
            "spec.http.rules[].matches[].headers[].name",
            ["x-a", "X-A", "!#$%&'*+-.^_`|~0"],
            ["x a", "x:", ":path", "é", "x\n"],
        ),
        ("spec.http.parentRefs[].sectionName", ["http", "a.b", "0-a"], ["HTTP", "a_b", "-a", "a."]),
        ("spec.http.rules[].backendRefs[].kind", ["Service", "A-b"], ["0", "Ser vice", "-A"]),
        (
            "spec.http.rules[].matches[].path.value",
            ["/", "/a/", "/a/.b", "/a/..b", "/a%20b", "/a/b...", "/%2e%2e"],
            ["a", "//", "/a//b", "/./a", "/a/../b", "/a%2fb", "/a%2Fb", "/a#b", "/a/.", "/a/.."],
        ),
    ],
)
def test_a_text_is_what_the_gateway_api_allows(path: str, good: list[str], bad: list[str]) -> None:
    for value in (*good, *bad):
        body = content(GW_ROUTE)
        where = put(body, path, lambda _, value=value: value)
        found = faults(GW_ROUTE, body)
        if value in good:
            assert found == [], value
        else:
            assert len(found) == 1, value
            assert found[0].startswith(f"{where}: it is {value!r}, and should ")


def test_a_listener_without_hostname_may_say_so() -> None:
    body = content(GW_PROXY)
    put(body, "spec.gateway.listeners[].hostname", lambda _: "")
    assert faults(GW_PROXY, body) == []


@pytest.mark.parametrize(("rules", "matches"), [(2, 64), (16, 8), (3, 43), (16, 9)])
def test_matches_of_a_route_count_together(rules: int, matches: int) -> None:
    body = content(GW_ROUTE)
    rule = body["spec"]["http"]["rules"][0]
    rule["matches"] = many(rule["matches"], matches)
    body["spec"]["http"]["rules"] = many([rule], rules)
    count = rules * matches
    wrong = [f"spec.http.rules: {count} matches in all rules; at most 128 are possible"]
    assert faults(GW_ROUTE, body) == ([] if count <= 128 else wrong)


def test_listeners_have_names_of_their_own() -> None:
    body = content(GW_PROXY)
    put(body, "spec.gateway.listeners", lambda value: [value[0], {**value[0], "name": "other"}, value[0]])
    wrong = "2 listeners are called 'http'; give each its own name"
    assert faults(GW_PROXY, body) == [f"spec.gateway.listeners.{i}.name: {wrong}" for i in (0, 2)]


@pytest.mark.parametrize(("field", "most"), [("certificateRefs", 64), ("options", 16)])
def test_tls_of_a_listener_is_bounded(field: str, most: int) -> None:
    for size in (most - 1, most, most + 1):
        body = content(GW_PROXY)
        items: Any = [{"name": f"c{i}"} for i in range(size)]
        given = items if field == "certificateRefs" else {f"o{i}": "v" for i in range(size)}
        put(body, "spec.gateway.listeners[].tls", lambda tls, given=given: {**tls, field: given})
        wrong = [f"spec.gateway.listeners.0.tls.{field}: {size} items; at most {most} are possible"]
        assert faults(GW_PROXY, body) == ([] if size <= most else wrong)


@pytest.mark.parametrize(
    "place", ["infrastructure", "allowedListeners", "tls", "listener tls", "namespaces", "kinds"]
)
def test_what_a_gateway_keeps_and_is_not_served_is_bounded(place: str) -> None:
    for items, right in ((4_000, True), (8_200, False)):
        body = content(GW_PROXY)
        gateway = body["spec"]["gateway"]
        given: Any = {"a": "xy" * items if place == "kinds" else [[]] * (items * 2 // 3)}
        if place == "listener tls":
            gateway["listeners"][0]["tls"] = given
        elif place in ("namespaces", "kinds"):
            gateway["listeners"][0]["allowedRoutes"] = {place: [given] if place == "kinds" else given}
        else:
            gateway[place] = given
        found = faults(GW_PROXY, body)
        assert len(found) == (0 if right else 1)
        assert all(
            fault.startswith("spec.gateway: infrastructure, allowedListeners, tls, ") for fault in found
        )
        assert all(fault.endswith("at most 16384 are possible, for they are not served") for fault in found)


def test_fields_that_are_not_served_count_together() -> None:
    body = content(GW_PROXY)
    for name in ("infrastructure", "allowedListeners", "tls"):
        assert faults(GW_PROXY, body) == []
        body["spec"]["gateway"][name] = {"a": "x" * 6_000}
    assert len(faults(GW_PROXY, body)) == 1


def test_many_listeners_that_say_what_gateways_say_are_allowed() -> None:
    body = content(GW_PROXY)
    kinds = [{"group": "gateway.networking.k8s.io", "kind": kind} for kind in ("HTTPRoute", "TCPRoute")]
    listener = {
        **body["spec"]["gateway"]["listeners"][0],
        "tls": {
            "mode": "Terminate",
            "certificateRefs": [{"group": "", "kind": "Secret", "name": "a-certificate"}],
        },
        "allowedRoutes": {"namespaces": {"from": "Same"}, "kinds": kinds},
    }
    body["spec"]["gateway"]["listeners"] = many([listener], 64)
    assert faults(GW_PROXY, body) == []


def test_a_gateway_that_is_stored_is_read_whatever_it_keeps() -> None:
    body = content(GW_PROXY)
    body["spec"]["gateway"]["infrastructure"] = {"a": [[]] * 10_000}
    stored = GW_PROXY.encode(GW_PROXY.model.model_validate(body))
    gateway = GW_PROXY.decode(stored, 1).spec.gateway
    assert gateway is not None
    assert gateway.infrastructure == {"a": [[]] * 10_000}


def test_the_whole_of_an_object_is_bounded() -> None:
    body = content(GW_ROUTE)
    header = {"name": "x-a", "value": ""}
    rule = body["spec"]["http"]["rules"][0]
    rule["matches"] = [{"headers": [dict(header) for _ in range(16)]} for _ in range(64)]
    size = len(GW_ROUTE.model.model_validate(body).spec.model_dump_json(by_alias=True, exclude_none=True))
    headers = [header for match in rule["matches"] for header in match["headers"]]
    missing = MOST_BYTES - size
    for header in headers:
        header["value"] = "v" * min(missing, 4096)
        missing -= len(header["value"])
    for header in headers:
        header["value"] = header["value"] or "v"
    spare = next(header for header in headers if len(header["value"]) == 4096)
    spare["value"] = spare["value"][: 4096 - sum(len(h["value"]) for h in headers) + MOST_BYTES - size]
    assert faults(GW_ROUTE, body) == []
    short = next(header for header in headers if len(header["value"]) < 4096)
    short["value"] += "v"
    assert faults(GW_ROUTE, body) == [
        f"spec: it has {MOST_BYTES + 1} bytes as JSON; at most {MOST_BYTES} are possible"
    ]


def test_what_epic_fills_in_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    body = content(GW_PROXY)
    spec = GW_PROXY.model.model_validate(body).spec
    given = spec.model_dump_json(by_alias=True, exclude_none=True, exclude=set(GW_PROXY.filled_in))
    monkeypatch.setattr(validation, "MOST_BYTES", len(given.encode()))
    (tunnels,) = body["spec"]["gue-tunnel-endpoints"].values()
    body["spec"]["gue-tunnel-endpoints"] = {f"192.0.2.{n}": tunnels for n in range(250)}
    assert faults(GW_PROXY, body) == []
    body["spec"]["display-name"] += "x"
    assert len(faults(GW_PROXY, body)) == 1


def test_bytes_are_counted_and_not_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    body = content(GW_PROXY)
    body["spec"]["display-name"] = "a"
    spec = GW_PROXY.model.model_validate(body).spec
    given = spec.model_dump_json(by_alias=True, exclude_none=True, exclude=set(GW_PROXY.filled_in))
    monkeypatch.setattr(validation, "MOST_BYTES", len(given.encode()))
    assert faults(GW_PROXY, body) == []
    body["spec"]["display-name"] = "ä"
    assert len(faults(GW_PROXY, body)) == 1


def test_what_is_too_much_is_not_looked_into() -> None:
    body = content(GW_ROUTE)
    rule = body["spec"]["http"]["rules"][0]
    rule["name"] = "NO NAME"
    body["spec"]["http"]["rules"] = [rule] * 20_000
    assert faults(GW_ROUTE, body) == ["spec.http.rules: 20000 rules; at most 16 are possible"]


def test_a_refusal_names_the_first_faults_and_counts_the_others() -> None:
    body = content(GW_ROUTE)
    body["spec"]["http"]["hostnames"] = ["a b"] * 16
    route = GW_ROUTE.model.model_validate(body)
    with pytest.raises(Invalid) as refusal:
        refuse_invalid(GW_ROUTE, route, "route")
    faults = str(refusal.value).split("; ")
    right = "it is 'a b', and should be a DNS name, perhaps with '*.' before it"
    assert faults == [*(f"route.spec.http.hostnames.{i}: {right}" for i in range(8)), "8 more faults"]
    assert explain(validate(GW_ROUTE, route)[:1]) == f"spec.http.hostnames.0: {right}"


@pytest.mark.parametrize("kind", list(KINDS), ids=lambda kind: kind.name)
def test_a_sample_is_valid(kind: Kind[Any]) -> None:
    assert faults(kind, content(kind)) == []


def test_what_epic_writes_itself_has_no_limit_of_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MOST_BYTES", 10)
    assert {kind.name for kind in KINDS if faults(kind, content(kind))} == {kind.name for kind in WRITTEN}


def test_what_is_stored_is_read_whatever_the_limits_are() -> None:
    body = content(GW_ROUTE)
    body["spec"]["http"]["hostnames"] = ["no name"] * 100
    stored = GW_ROUTE.encode(GW_ROUTE.model.model_validate(body))
    assert len(GW_ROUTE.decode(stored, 1).spec.http.hostnames) == 100


def test_the_schema_shows_the_limits() -> None:
    schema = TypeAdapter(HTTPRouteSpec).json_schema(by_alias=True)
    hostnames = schema["properties"]["hostnames"]
    assert hostnames["maxItems"] == 16
    assert hostnames["items"]["maxLength"] == 253
    assert schema["properties"]["rules"]["maxItems"] == 16
    slice_schema = json.dumps(TypeAdapter(GW_ENDPOINT_SLICE.spec).json_schema(by_alias=True))
    assert '"maxProperties": 5000' in slice_schema
    assert (
        LB_SERVICE_GROUP.spec.model_json_schema()["$defs"]["Template"]["properties"]["name"]["maxLength"]
        == 253
    )


@given(st.text(string.printable, max_size=12))
def test_a_hostname_of_the_schema_is_one_that_is_taken(name: str) -> None:
    """The pattern means the same to who reads the schema and to who checks the object."""
    items = TypeAdapter(HTTPRouteSpec).json_schema(by_alias=True)["properties"]["hostnames"]["items"]
    shown = Text(items["maxLength"], items["minLength"], items["pattern"], "")
    body = content(GW_ROUTE)
    body["spec"]["http"]["hostnames"] = [name]
    assert bool(faults(GW_ROUTE, body)) == (not shown.allows(name))
