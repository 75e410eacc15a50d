# SPDX-License-Identifier: Apache-2.0
"""Listeners take routes of the namespaces that they say, by the names that clients give."""

from __future__ import annotations

from typing import Any

import pytest

from epic.gatewayapi.listeners import specified
from epic.gatewayapi.namespaces import AllowedNamespaces
from epic.gatewayapi.statuses import route_parents
from epic.gatewayapi.translate import translate
from epic.model.base import Condition
from epic.model.members import GWMember
from epic.model.resources import GWProxy, GWRoute
from epic.model.values.labels import Requirement
from epic.model.values.naming import SOURCES_ANNOTATION

SELECTOR = {"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}
NAME = "kubernetes.io/metadata.name"


def listener(rule: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    allowed = {} if rule is None else {"allowedRoutes": {"namespaces": rule}}
    return {"name": "web", "port": 80, "protocol": "HTTP", **allowed, **more}


def gateway(*listeners: dict[str, Any], namespace: str = "shop", **spec: Any) -> GWProxy:
    content = {
        "clientRef": {"clusterID": "c1", "namespace": namespace, "name": "web"},
        "public-address": "203.0.113.1",
        "gateway": {"gatewayClassName": "epic", "listeners": listeners},
        **spec,
    }
    return GWProxy.model_validate({"metadata": {"name": "U1", "namespace": "root"}, "spec": content})


def route(namespace: str, sources: str = "", cluster: str = "c1") -> GWRoute:
    client = {"clusterID": cluster, "namespace": namespace, "name": "r"}
    annotations = {SOURCES_ANNOTATION: sources} if sources else {}
    metadata = {"name": "R1", "namespace": "root", "annotations": annotations}
    http = {"parentRefs": [{"name": "U1"}], "hostnames": ["a.example.com"]}
    return GWRoute.model_validate({"metadata": metadata, "spec": {"clientRef": client, "http": http}})


def member(cluster: str, namespace: str) -> GWMember:
    client = {"clusterID": cluster, "namespace": namespace, "name": "web"}
    name = f"M-{cluster}-{namespace}"
    return GWMember.model_validate(
        {"metadata": {"name": name, "namespace": "root"}, "spec": {"clientRef": client, "sharing-key": "U1"}}
    )


def told(proxy: GWProxy, route: GWRoute, *members: GWMember) -> Condition:
    """What the route's owner is told, which is what is served."""
    ((_, condition),) = route_parents(route, lambda _: proxy, lambda _: members, lambda *_: {})
    translation = translate(proxy, [route], [], members=members)
    (status,) = translation.parents
    assert (status.accepted, status.reason) == (condition.status == "True", condition.reason)
    hosts = {host.hostname for port in translation.routing.ports for host in port.virtual_hosts}
    assert ("a.example.com" in hosts) == status.accepted
    return condition


@pytest.mark.parametrize(
    ("rule", "namespace", "is_taken"),
    [
        (None, "shop", True),
        (None, "bank", False),
        ({}, "bank", False),
        ({"from": None}, "bank", False),
        ({"from": "Same"}, "shop", True),
        ({"from": "Same"}, "bank", False),
        ({"from": "Same"}, "Shop", False),
        ({"from": "All"}, "bank", True),
        (SELECTOR, "shop", False),
        (SELECTOR, "bank", False),
        ({"from": "None"}, "shop", False),
        ({"from": ["All"]}, "shop", False),
        ({"from": ""}, "shop", False),
        ({"from": False}, "shop", False),
        ({"from": 0}, "shop", False),
        ({"from": []}, "shop", False),
    ],
)
def test_a_listener_takes_routes_of_the_namespaces_that_it_says(
    rule: dict[str, Any] | None, namespace: str, is_taken: bool
) -> None:
    found = told(gateway(listener(rule)), route(namespace))
    expected = ("True", "Accepted") if is_taken else ("False", "NotAllowedByListeners")
    assert (found.status, found.reason) == expected


def expression(operator: str, *values: str, key: str = NAME) -> dict[str, Any]:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


@pytest.mark.parametrize(
    ("selector", "is_taken"),
    [
        ({"matchLabels": {NAME: "bank"}}, True),
        ({"matchLabels": {NAME: "shop"}}, False),
        ({"matchExpressions": [expression("In", "bank", "fair")]}, True),
        ({"matchExpressions": [expression("NotIn", "shop")]}, True),
        ({"matchExpressions": [expression("NotIn", "bank")]}, False),
        ({"matchExpressions": [expression("Exists")]}, True),
        ({"matchExpressions": [expression("DoesNotExist")]}, False),
        ({"matchLabels": {NAME: "bank"}, "matchExpressions": [expression("NotIn", "bank")]}, False),
        ({"matchExpressions": [expression("In", "bank", "fair"), expression("In", "bank", "shop")]}, True),
        ({"matchExpressions": [expression("In", "bank", "fair"), expression("In", "fair", "shop")]}, False),
        ({"matchExpressions": [expression("NotIn", "shop"), expression("NotIn", "fair")]}, True),
        ({"matchExpressions": [expression("NotIn", "shop"), expression("NotIn", "bank")]}, False),
        ({"matchLabels": {NAME: "bank"}, "matchExpressions": [expression("DoesNotExist")]}, False),
        # One of another label is enough that nobody can tell.
        ({"matchLabels": {NAME: "bank", "team": "a"}}, False),
        ({"matchLabels": {NAME: "bank"}, "matchExpressions": [expression("Exists", key="team")]}, False),
        ({"matchLabels": {"team": "a"}}, False),
        # By Kubernetes' rule an empty one selects every namespace.
        ({}, True),
        ({"matchLabels": {}, "matchExpressions": []}, True),
        # None at all, and some that are not understood.
        (None, False),
        ("bank", False),
        ({"matchNames": ["bank"]}, False),
        ({"matchExpressions": [expression("Like", "bank")]}, False),
    ],
)
def test_namespaces_that_a_selector_names_are_taken_and_no_others(selector: object, is_taken: bool) -> None:
    rule = {"from": "Selector"} if selector is None else {"from": "Selector", "selector": selector}
    found = told(gateway(listener(rule)), route("bank"))
    expected = ("True", "Accepted") if is_taken else ("False", "NotAllowedByListeners")
    assert (found.status, found.reason) == expected


@pytest.mark.parametrize("value", [True, 7, None, ["bank"], {"bank": ""}])
def test_a_selector_with_a_value_that_is_no_text_is_not_understood(value: object) -> None:
    for selector in (
        {"matchLabels": {NAME: value}},
        {"matchExpressions": [{"key": NAME, "operator": "In", "values": [value]}]},
    ):
        rule = {"from": "Selector", "selector": selector}
        text = told(gateway(listener(rule)), route(str(value))).message
        assert "allowedRoutes.namespaces.selector is missing or not understood" in text


@pytest.mark.parametrize("first", [NAME, "team"])
def test_many_requirements_of_a_selector_cost_no_more_for_each_namespace_than_few(
    first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = 0

    def counted(requirement: Requirement) -> int:
        nonlocal measured
        measured += 1
        return hash((requirement.key, requirement.operator))

    def measured_of(number: int) -> int:
        nonlocal measured
        expressions = [expression("NotIn", "bank", key=first)]
        expressions += [
            expression("NotIn", f"n{i}", key=NAME if first == NAME else f"l{i}") for i in range(number)
        ]
        proxy = gateway(listener({"from": "Selector", "selector": {"matchExpressions": expressions}}))
        allowed, measured = AllowedNamespaces(proxy, specified(proxy.spec), ()), 0
        for name in ("bank", "fair"):
            allowed.closed_to(route(name))
        return measured

    monkeypatch.setattr(Requirement, "__hash__", counted)
    assert measured_of(100) == measured_of(1) > 0


def test_a_selector_by_name_says_which_namespace_it_does_not_select() -> None:
    rule = {"from": "Selector", "selector": {"matchLabels": {NAME: "shop"}}}
    text = told(gateway(listener(rule)), route("bank")).message
    assert text.startswith("Listeners web: namespace 'bank' is not selected by the names of namespaces")


def test_a_selector_by_name_takes_no_route_of_a_client_that_names_no_namespace() -> None:
    rule = {"from": "Selector", "selector": {"matchExpressions": [expression("NotIn", "shop")]}}
    assert told(gateway(listener(rule)), route("")).status == "False"


def test_listeners_may_select_other_namespaces_each() -> None:
    rules = {
        name: {"from": "Selector", "selector": {"matchLabels": {NAME: name}}} for name in ("shop", "bank")
    }
    shop, bank = listener(rules["shop"], name="shop"), listener(rules["bank"], name="bank", port=81)
    translation = translate(gateway(shop, bank), [route("bank")], [])
    assert {status.name: status.attached_routes for status in translation.listeners} == {"shop": 0, "bank": 1}


def test_who_is_refused_is_told_why() -> None:
    same, selector = listener(None), listener(SELECTOR, name="other", hostname="*.example.com")
    first = "Listeners web: only routes of namespace 'shop' are taken, and this one is of 'bank'"
    assert told(gateway(same), route("bank")).message.startswith(first)
    both = told(gateway(same, selector), route("bank")).message
    assert both.startswith(first)
    assert "Listeners other: routes are taken by the labels of their namespaces" in both
    assert "use Same, All, or a selector of label kubernetes.io/metadata.name" in both


def test_one_listener_that_takes_the_route_is_enough_and_the_others_stay_closed() -> None:
    closed, open_ = listener(None), listener({"from": "All"}, name="open", port=81)
    proxy = gateway(closed, open_)
    assert told(proxy, route("bank")).status == "True"
    ports = {port.number: port.virtual_hosts for port in translate(proxy, [route("bank")], []).routing.ports}
    assert [host.hostname for host in ports[80]] == ["*"]
    assert "a.example.com" in {host.hostname for host in ports[81]}


@pytest.mark.parametrize(("gateways", "routes"), [("shop", ""), ("", "bank"), ("", "")])
def test_a_client_that_names_no_namespaces_is_not_kept_apart_by_them(gateways: str, routes: str) -> None:
    assert told(gateway(listener(None), namespace=gateways), route(routes)).status == "True"
    # What only labels can tell nobody can.
    assert told(gateway(listener(SELECTOR), namespace=gateways), route(routes)).status == "False"


def test_a_gateway_without_listeners_of_its_own_has_said_nothing_of_namespaces() -> None:
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
    proxy = gateway(**{"gateway": None, "public-ports": ports})
    assert told(proxy, route("bank")).status == "True"


@pytest.mark.parametrize("rule", [None, SELECTOR])
def test_what_a_client_controller_has_admitted_stays_admitted(rule: dict[str, Any] | None) -> None:
    assert told(gateway(listener(rule)), route("bank", sources="c1/host1")).status == "True"


@pytest.mark.parametrize(
    ("cluster", "namespace", "is_taken"),
    [
        ("c1", "shop", True),
        ("c1", "bank", False),
        ("c2", "bank", True),
        ("c2", "shop", False),
        # Of a cluster without a member, by the gateway's.
        ("c3", "shop", True),
        ("c3", "bank", False),
    ],
)
def test_of_a_shared_gateway_the_same_namespace_is_that_of_the_members_own_cluster(
    cluster: str, namespace: str, is_taken: bool
) -> None:
    members = [member("c1", "shop"), member("c2", "bank")]
    found = told(gateway(listener(None)), route(namespace, cluster=cluster), *members)
    assert (found.status == "True") == is_taken


def test_who_is_refused_by_a_shared_gateway_is_told_the_namespace_of_its_own_cluster() -> None:
    members = [member("c1", "shop"), member("c2", "bank")]
    found = told(gateway(listener(None)), route("shop", cluster="c2"), *members)
    assert "only routes of namespace 'bank' are taken, and this one is of 'shop'" in found.message


def test_a_cluster_may_share_a_gateway_with_several_of_its_namespaces() -> None:
    members = [member("c1", "shop"), member("c2", "bank"), member("c2", "fair")]
    proxy = gateway(listener(None))
    for namespace, status in (("bank", "True"), ("fair", "True"), ("shop", "False")):
        assert told(proxy, route(namespace, cluster="c2"), *members).status == status
    refused = told(proxy, route("shop", cluster="c2"), *members).message
    assert "only routes of namespaces 'bank', 'fair' are taken" in refused


def test_who_has_the_say_changes_nothing_for_the_others() -> None:
    """The first has left, and the gateway stands for the second's Gateway now."""
    members = [member("c2", "bank"), member("c3", "shop")]
    proxy = gateway(listener(None), namespace="bank")
    spec = proxy.spec.model_copy(
        update={"client_ref": proxy.spec.client_ref.model_copy(update={"cluster_id": "c2"})}
    )
    proxy = proxy.model_copy(update={"spec": spec})
    assert told(proxy, route("shop", cluster="c3"), *members).status == "True"
    assert told(proxy, route("bank", cluster="c3"), *members).status == "False"


def test_a_member_that_names_no_namespace_has_none_to_keep_apart() -> None:
    members = [member("c1", "shop"), member("c2", "")]
    assert told(gateway(listener(None)), route("bank", cluster="c2"), *members).status == "True"
