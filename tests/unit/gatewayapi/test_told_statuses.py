# SPDX-License-Identifier: Apache-2.0
"""What owners are told of listeners that are not served, and of routes that no gateway takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from epic.gatewayapi.statuses import accepted, resolved_refs, route_parents, told_left_out
from epic.gatewayapi.target_ports import TargetPorts
from epic.model.gatewayapi import EndpointPort
from epic.model.members import GWMember
from epic.model.resources import GWProxy, GWRoute

WEB = {"name": "web", "port": 80, "protocol": "HTTP", "hostname": "*.example.com"}
SECURE = {"name": "secure", "port": 443, "protocol": "HTTPS"}
NOT_SERVED = "Listener 'secure' is not served: Protocol 'HTTPS' is not supported; supported are HTTP, TCP."


def no_members(_: GWProxy) -> list[GWMember]:
    return []


def gateway(*listeners: dict[str, Any]) -> GWProxy:
    spec = {"gateway": {"gatewayClassName": "epic", "listeners": listeners}}
    metadata = {"name": "U1", "namespace": "shop", "generation": 4}
    return GWProxy.model_validate({"metadata": metadata, "spec": spec})


def route(hostname: str, *parents: dict[str, Any]) -> GWRoute:
    http = {"parentRefs": parents, "hostnames": [hostname], "rules": [{"backendRefs": [{"name": "s1"}]}]}
    metadata = {"name": "R1", "namespace": "shop", "generation": 7}
    return GWRoute.model_validate({"metadata": metadata, "spec": {"http": http}})


def all_fit(_: GWProxy, __: Sequence[GWMember]) -> dict[str, str]:
    return {}


@pytest.mark.parametrize(
    ("listeners", "status", "reason", "message"),
    [
        ([WEB], "True", "Accepted", ""),
        ([WEB, SECURE], "True", "ListenersNotValid", NOT_SERVED),
        ([SECURE], "False", "ListenersNotValid", NOT_SERVED),
        ([], "True", "Accepted", ""),
    ],
)
def test_a_gateway_says_which_listeners_are_not_served(
    listeners: list[dict[str, Any]], status: str, reason: str, message: str
) -> None:
    found = accepted(gateway(*listeners))
    assert (found.status, found.reason, found.message) == (status, reason, message)
    assert found.observed_generation == 4


@pytest.mark.parametrize(
    ("field", "value", "status", "reason"),
    [
        ("infrastructure", {"labels": {"team": "shop"}}, "True", "UnsupportedValue"),
        ("infrastructure", {"parametersRef": {"kind": "X", "name": "y"}}, "False", "InvalidParameters"),
        ("allowedListeners", {"namespaces": {"from": "All"}}, "True", "UnsupportedValue"),
        ("tls", {"frontend": {"default": {}}}, "True", "UnsupportedValue"),
        ("defaultScope", "All", "True", "UnsupportedValue"),
        ("infrastructure", {}, "True", "Accepted"),
    ],
)
def test_a_gateway_says_which_fields_are_not_served(
    field: str, value: object, status: str, reason: str
) -> None:
    spec = {"gateway": {"gatewayClassName": "epic", "listeners": [WEB], field: value}}
    found = accepted(GWProxy.model_validate({"metadata": {"name": "U1"}, "spec": spec}))
    assert (found.status, found.reason) == (status, reason)
    assert found.message == ("" if reason == "Accepted" else f"Field spec.{field} is not served.")


def test_a_gateway_says_how_many_routes_are_left_out_and_is_accepted() -> None:
    def said(number: int, *listeners: dict[str, Any]) -> tuple[str, str, str]:
        found = accepted(gateway(*listeners), number)
        assert told_left_out(found.message) == number
        return found.status, found.reason, found.message

    words = "for the gateway has no room beside older ones; the condition Accepted of each says of what."
    assert said(0, WEB) == ("True", "Accepted", "")
    assert said(1, WEB) == ("True", "RoutesLeftOut", f"1 route is left out, {words}")
    many = f"7 routes are left out, {words}"
    assert said(7, WEB) == ("True", "RoutesLeftOut", many)
    assert said(7, WEB, SECURE) == ("True", "ListenersNotValid", f"{many} {NOT_SERVED}")


def test_a_route_that_is_left_out_says_so_where_it_would_be_attached() -> None:
    refs = [{"name": "U1"}, {"name": "U1", "sectionName": "db"}]
    found = route_parents(
        route("a.example.com", *refs),
        lambda _: gateway(WEB),
        no_members,
        lambda *_: {"R1": "it is too large"},
    )
    assert [(c.status, c.reason, c.message) for _, c in found] == [
        ("False", "UnsupportedValue", "The gateway has no room for it: it is too large."),
        (
            "False",
            "NoMatchingParent",
            "The gateway has no listener with section 'db'; its listeners: web (port 80).",
        ),
    ]


def test_a_route_says_of_each_of_its_gateways_whether_it_takes_it() -> None:
    asked: list[str] = []

    def find(name: str) -> GWProxy | None:
        asked.append(name)
        return gateway(WEB) if name == "U1" else None

    service = {"name": "U1", "kind": "Service", "group": ""}
    refs = [{"name": "U1"}, {"name": "U1", "sectionName": "db"}, {"name": "U2"}, service]
    found = [
        (ref.section_name, c.status, c.reason)
        for ref, c in route_parents(route("a.example.com", *refs), find, no_members, all_fit)
    ]
    assert found == [
        (None, "True", "Accepted"),
        ("db", "False", "NoMatchingParent"),
        (None, "False", "NoMatchingParent"),
        (None, "False", "UnsupportedValue"),
    ]
    ((_, refused),) = route_parents(route("example.org", {"name": "U1"}), find, no_members, all_fit)
    assert (refused.reason, refused.observed_generation) == ("NoMatchingListenerHostname", 7)
    assert refused.message == "None of its hostnames is covered by *.example.com."
    assert sorted(asked) == ["U1", "U1", "U2"]


@pytest.mark.parametrize(
    ("parent", "named"),
    [
        ({"kind": "ListenerSet"}, "'ListenerSet' (group 'gateway.networking.k8s.io')"),
        ({"kind": "Service", "group": ""}, "'Service' (group '')"),
        ({"kind": "Service"}, "'Service' (group 'gateway.networking.k8s.io')"),
        ({"group": "example.org"}, "'Gateway' (group 'example.org')"),
    ],
)
def test_a_parent_that_is_no_gateway_is_said_not_to_be_served(parent: dict[str, Any], named: str) -> None:
    refs = [{"name": "U1", **parent}, {"name": "U1"}]
    (_, other), (_, taken) = route_parents(
        route("a.example.com", *refs), lambda _: gateway(WEB), no_members, all_fit
    )
    assert (other.status, other.reason) == ("False", "UnsupportedValue")
    assert other.message == f"A parent of kind {named} is not served, only Gateways of the Gateway API."
    assert taken.status == "True"


def test_what_is_said_of_a_route_is_short_however_many_listeners_there_are() -> None:
    hosts = ({"hostname": f"h{number}", "name": f"listener-{number}"} for number in range(64))
    listeners = [{"port": 80, "protocol": "HTTP", **host} for host in hosts]
    many = [{"name": "U1", "sectionName": f"none-{number}"} for number in range(32)]
    found = route_parents(route("h1", *many), lambda _: gateway(*listeners), no_members, all_fit)
    assert len(found) == 32
    assert max(len(condition.message) for _, condition in found) <= 500


def test_of_many_listeners_the_first_are_named() -> None:
    listeners = [{"port": 80 + n, "protocol": "HTTP", "name": f"l{n}"} for n in range(64)]
    found = route_parents(
        route("h1", {"name": "U1", "port": 1}), lambda _: gateway(*listeners), no_members, all_fit
    )
    assert found[0][1].message == (
        "The gateway has no listener with port 1; its listeners: "
        "l0 (port 80), l1 (port 81), l2 (port 82), l3 (port 83), l4 (port 84), 59 more."
    )


def test_a_route_says_which_of_its_backends_do_not_exist() -> None:
    one = [TargetPorts([EndpointPort(port=8080)])]
    two = [TargetPorts([EndpointPort(port=8080), EndpointPort(port=9090)])]
    services = {"one": one, "two": two}

    def said(*backends: dict[str, Any]) -> tuple[str, str, str]:
        content = {"http": {"rules": [{"backendRefs": backends}]}}
        metadata = {"name": "R1", "namespace": "shop", "generation": 7}
        found = resolved_refs(GWRoute.model_validate({"metadata": metadata, "spec": content}), services.get)
        assert (found.type, found.observed_generation) == ("ResolvedRefs", 7)
        return found.status, found.reason, found.message

    right = [{"name": "one", "port": 80}, {"name": "one"}, {"name": "two", "port": 9090}]
    assert said(*right) == ("True", "ResolvedRefs", "")
    assert said(*right, {"name": "two", "port": 81}) == (
        "False",
        "BackendNotFound",
        "Service 'two' has no port 81.",
    )
    assert said({"name": "two"})[1:] == (
        "BackendNotFound",
        "Service 'two' has several ports; say which one.",
    )
    assert said({"name": "three", "port": 80})[1:] == (
        "BackendNotFound",
        "There is no EndpointSlice of Service 'three'.",
    )
    assert said({"name": "one", "kind": "Bucket"}, {"name": "three"})[1] == "InvalidKind"
    many = [{"name": "three", "port": port} for port in range(1, 17)]
    assert len(said(*many)[2]) <= 500
