# SPDX-License-Identifier: Apache-2.0
"""What crosses namespaces: only what a ReferenceGrant or a listener's selector permits."""

from __future__ import annotations

from typing import Any

import pytest
from manifests import HOST, shop

from epic.controller.core import Translator
from epic.controller.desired import Desired
from epic.controller.objects import Document, Objects, Ref, Unseen, parse

GATEWAY_API = "gateway.networking.k8s.io"
BANK = Ref("Service", "bank", "vault")


def grant(**changes: str) -> dict[str, Any]:
    wanted = {"namespace": "bank", "source": "shop", "kind": "HTTPRoute", "name": "vault", **changes}
    to = {"group": "", "kind": "Service", **({"name": wanted["name"]} if wanted["name"] else {})}
    return {
        "apiVersion": f"{GATEWAY_API}/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "g", "namespace": wanted["namespace"]},
        "spec": {
            "from": [{"group": GATEWAY_API, "kind": wanted["kind"], "namespace": wanted["source"]}],
            "to": [to],
        },
    }


def bank() -> list[dict[str, Any]]:
    """A Service of another namespace, with an endpoint."""
    metadata = {"name": "vault", "namespace": "bank"}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "vault"}},
            "endpoints": [{"addresses": ["192.168.50.12"], "nodeName": "node1"}],
            "ports": [{"port": 8080}],
        },
    ]


def to_the_bank(content: dict[str, Any]) -> None:
    content["spec"]["rules"][0]["backendRefs"] = [{"name": "vault", "namespace": "bank", "port": 80}]


def translator(*contents: dict[str, Any]) -> Translator:
    objects, problems = parse(Document("shop.yaml", content) for content in contents)
    assert not problems, problems
    return Translator(Objects(objects), HOST)


def asked(*contents: dict[str, Any]) -> Desired:
    return translator(*contents).update(None)


def backend_of(desired: Desired) -> str:
    (route,) = desired.routes
    return str(route.spec["http"]["rules"][0]["backendRefs"][0]["name"])


def service_of(desired: Desired) -> set[str]:
    return {
        item.spec["parentRef"]["uid"]
        for item in desired.slices
        if item.spec["parentRef"]["namespace"] == "bank"
    }


def reasons(desired: Desired) -> list[str]:
    return [problem.reason for problem in desired.problems]


@pytest.mark.parametrize("name", ["vault", ""], ids=["by-name", "all"])
def test_a_grant_lets_a_route_refer_to_a_service_of_its_namespace(name: str) -> None:
    desired = asked(*shop(HTTPRoute=to_the_bank), *bank(), grant(name=name))
    assert reasons(desired) == []
    assert service_of(desired) == {backend_of(desired)}


@pytest.mark.parametrize(
    "changes",
    [{"namespace": "shop"}, {"source": "other"}, {"kind": "TCPRoute"}, {"name": "safe"}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_grant_of_something_else_permits_nothing(changes: dict[str, str]) -> None:
    desired = asked(*shop(HTTPRoute=to_the_bank), *bank(), grant(**changes))
    assert "RefNotPermitted" in reasons(desired)
    assert service_of(desired).isdisjoint({backend_of(desired)})


def test_a_grant_that_comes_and_goes_is_followed() -> None:
    contents = [*shop(HTTPRoute=to_the_bank), *bank()]
    objects, _ = parse(Document("shop.yaml", content) for content in contents)
    found = Objects(objects)
    follow = Translator(found, HOST)
    assert "RefNotPermitted" in reasons(follow.update(None))
    (given,), _ = parse([Document("bank.yaml", grant())])
    found.put(given)
    permitted = follow.update({given.ref})
    assert (reasons(permitted), service_of(permitted)) == ([], {backend_of(permitted)})
    found.remove(given.ref)
    # While its file cannot be read it is not gone: the route and the slices stay as they are on EPIC.
    unsure = follow.update({given.ref}, Unseen(refs=frozenset({given.ref})))
    assert unsure.routes == ()
    assert {str(ref) for ref in unsure.held} >= {"HTTPRoute shop/web", "EndpointSlice bank/vault"}
    gone = follow.update(set())
    assert backend_of(gone) != backend_of(permitted)
    assert "RefNotPermitted" in reasons(gone)


def selecting(selector: object) -> Any:
    def change(content: dict[str, Any]) -> None:
        rule = {"from": "Selector", "selector": selector}
        content["spec"]["listeners"][0]["allowedRoutes"] = {"namespaces": rule}

    return change


def from_elsewhere(content: dict[str, Any]) -> None:
    content["metadata"]["namespace"] = "bank"
    content["spec"]["parentRefs"][0]["namespace"] = "shop"


def namespace(**labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bank", "labels": labels}}


@pytest.mark.parametrize(
    ("selector", "admitted"),
    [
        ({"matchLabels": {"team": "money"}}, True),
        ({"matchLabels": {"team": "shop"}}, False),
        ({"matchLabels": {"kubernetes.io/metadata.name": "bank"}}, True),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["money", "x"]}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["money"]}]}, False),
        ({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, False),
        (
            {"matchLabels": {"team": "money"}, "matchExpressions": [{"key": "old", "operator": "Exists"}]},
            False,
        ),
        ({}, True),
        # What is not understood restricts to nothing, not to everything.
        (None, False),
        ({"matchLabels": ["team"]}, False),
        ({"matchExpressions": [{"key": "team", "operator": "Like", "values": ["m"]}]}, False),
        ({"matchExpressions": [{"key": "team", "operator": "Exists", "values": ["m"]}]}, False),
        ({"matchNames": ["bank"]}, False),
        ({"matchLabels": {"rich": True}}, False),
    ],
)
def test_a_selector_of_a_listener_goes_by_the_labels_of_namespaces(selector: object, admitted: bool) -> None:
    contents = shop(Gateway=selecting(selector), HTTPRoute=from_elsewhere)
    desired = asked(*contents, namespace(team="money", rich="True"))
    assert len(desired.routes) == admitted
    assert ("NotAllowedByListeners" in reasons(desired)) == (not admitted)


def test_labels_that_change_are_followed_and_those_that_cannot_be_seen_are_not_gone() -> None:
    contents = shop(Gateway=selecting({"matchLabels": {"team": "money"}}), HTTPRoute=from_elsewhere)
    objects, _ = parse(Document("shop.yaml", content) for content in [*contents, namespace(team="money")])
    found = Objects(objects)
    follow = Translator(found, HOST)
    assert len(follow.update(None).routes) == 1
    (other,), _ = parse([Document("n.yaml", namespace(team="other"))])
    found.put(other)
    assert "NotAllowedByListeners" in reasons(follow.update({other.ref}))
    found.remove(other.ref)
    unsure = follow.update({other.ref}, Unseen(refs=frozenset({other.ref})))
    assert (unsure.routes, Ref("HTTPRoute", "bank", "web") in unsure.held) == ((), True)
