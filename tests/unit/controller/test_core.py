# SPDX-License-Identifier: Apache-2.0
"""What the client's objects ask of EPIC: gateways, routes, slices, and the problems that are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from manifests import HOST, shop, translated
from pydantic import SecretStr

from epic.controller.classes import CoreSettings, Login, object_uid
from epic.controller.core import Translator
from epic.controller.desired import EpicConnection
from epic.controller.objects import Document, EpicParameters, Objects, Problem, Ref, Unseen, parse

X_GROUP = "gateway.networking.x-k8s.io"
SERVICE_UID = object_uid("lab", Ref("Service", "shop", "web"))
GATEWAY_UID = object_uid("lab", Ref("Gateway", "shop", "web"))


def test_the_gateway_is_posted_in_the_original_shape() -> None:
    (proxy,) = translated(shop()).proxies
    assert proxy.create_path == "/api/epic/accounts/shop/groups/http/proxies"
    assert proxy.address.path == f"/api/epic/accounts/shop/proxies/{GATEWAY_UID}"
    assert proxy.body == {
        "proxy": {
            "spec": {
                "clientRef": {"clusterID": "lab", "namespace": "shop", "name": "web", "uid": GATEWAY_UID},
                "display-name": "web",
                "public-ports": [{"name": "http", "protocol": "TCP", "port": 80}],
                "gateway": {
                    "gatewayClassName": "epic",
                    "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}],
                },
            }
        }
    }


def test_the_route_names_the_gateway_and_the_service_by_uid() -> None:
    (route,) = translated(shop()).routes
    assert route.spec["http"] == {
        "parentRefs": [{"name": GATEWAY_UID}],
        "hostnames": ["shop.example.net"],
        "rules": [{"backendRefs": [{"name": SERVICE_UID, "port": 80}]}],
    }


def test_the_slice_says_on_which_node_its_endpoints_are() -> None:
    (slice_,) = translated(shop()).slices
    assert slice_.spec["parentRef"]["uid"] == SERVICE_UID
    assert slice_.spec["endpoints"] == [{"addresses": ["192.168.50.11"], "nodeName": "node1"}]
    assert slice_.spec["nodeAddresses"] == {"node1": "192.168.50.11"}
    assert slice_.spec["ports"] == [{"name": "http", "protocol": "TCP", "port": 8080}]


def test_the_connection_comes_from_the_configuration() -> None:
    expected = EpicConnection("https://epic1:8443", "shop", "shop", "secret", "lab")
    assert translated(shop()).connections == (expected,)
    assert "secret" not in repr(expected)


def test_hosts_share_services_and_gateways_but_not_slices() -> None:
    other = CoreSettings("lab", "node2", "172.30.3.11")
    one, two = translated(shop()), translated(shop(), other)
    assert [i.uid for i in (*one.proxies, *one.routes)] == [i.uid for i in (*two.proxies, *two.routes)]
    assert one.slices[0].spec["parentRef"] == two.slices[0].spec["parentRef"]
    assert one.slices[0].uid != two.slices[0].uid


def test_a_host_without_routes_publishes_its_slice_to_its_only_account() -> None:
    desired = translated(shop(Gateway=None, HTTPRoute=None, GatewayClass=None))
    assert [len(x) for x in (desired.proxies, desired.routes, desired.slices)] == [0, 0, 1]
    assert not desired.problems


def test_real_uids_are_kept() -> None:
    def with_uid(content: dict[str, Any]) -> None:
        content["metadata"]["uid"] = "U1"

    desired = translated(shop(Gateway=with_uid))
    assert desired.proxies[0].uid == "U1"
    assert desired.routes[0].spec["http"]["parentRefs"] == [{"name": "U1"}]


def test_a_route_of_a_type_that_is_not_served_says_so_and_is_not_sent() -> None:
    def grpc(content: dict[str, Any]) -> None:
        content["kind"] = "GRPCRoute"
        content["spec"]["rules"][0]["matches"] = [{"method": {"service": "shop.Cart"}}]

    desired = translated(shop(HTTPRoute=grpc))
    assert desired.routes == ()
    (problem,) = desired.problems
    assert (problem.object, problem.reason) == ("GRPCRoute shop/web", "NotAllowedByListeners")


def test_a_sharing_key_is_the_gateways_name() -> None:
    def share(content: dict[str, Any]) -> None:
        content["metadata"]["annotations"] = {"puregw.epic-gateway.org/sharing-key": "shop-web"}

    desired = translated(shop(Gateway=share))
    (member,) = desired.proxies
    assert (member.collection, member.spec["sharing-key"]) == ("members", "shop-web")
    assert member.spec["clientRef"]["uid"] == member.uid == translated(shop()).proxies[0].uid
    assert member.create_path == "/api/epic/accounts/shop/groups/http/members"
    assert desired.routes[0].spec["http"]["parentRefs"] == [{"name": "shop-web"}]


def test_the_users_own_login_replaces_the_configurations() -> None:
    def bare(content: dict[str, Any]) -> None:
        content["spec"]["epic"] = {"user-namespace": "shop", "gateway-template": "http"}

    settings = CoreSettings("here", login=Login("https://e:1", "ann", SecretStr("pw")))
    (connection,) = translated(shop(GatewayClassConfig=bare, EndpointSlice=None), settings).connections
    assert connection == EpicConnection("https://e:1", "shop", "ann", "pw", "here")


def test_a_gateway_without_its_class_uses_the_one_given() -> None:
    given = EpicParameters.model_validate({"user-namespace": "root", "gateway-template": "gatewayhttp"})
    settings = CoreSettings("c", login=Login("https://e:1", "a", SecretStr("p")), fallback=given)
    (proxy,) = translated(
        shop(GatewayClass=None, GatewayClassConfig=None, EndpointSlice=None), settings
    ).proxies
    assert proxy.create_path == "/api/epic/accounts/root/groups/gatewayhttp/proxies"


def test_another_implementations_gateway_is_left_alone() -> None:
    def foreign(content: dict[str, Any]) -> None:
        content["spec"]["controllerName"] = "example.org/other"

    desired = translated(shop(GatewayClass=foreign))
    assert (desired.proxies, desired.routes, desired.problems) == ((), (), ())


def test_what_loses_its_class_is_held_not_deleted() -> None:
    desired = translated(shop(GatewayClass=None))
    assert {str(ref) for ref in desired.held} == {"Gateway shop/web", "HTTPRoute shop/web"}
    assert "there is no GatewayClass 'epic'" in str(desired.problems[0])


def test_an_unlisted_port_falls_back_to_the_services_target_port() -> None:
    def no_ports(content: dict[str, Any]) -> None:
        del content["ports"]

    assert translated(shop(EndpointSlice=no_ports)).slices[0].spec["ports"] == [
        {"name": "http", "protocol": "TCP", "port": 8080}
    ]


def test_the_ports_of_a_service_with_several_are_named_by_number() -> None:
    several = [{"name": "http", "port": 80, "targetPort": "web"}, {"name": "admin", "port": 81}]
    ports = [{"name": "admin", "port": 9000}, {"name": "http", "port": 8080}]
    changes = {"Service": _set("spec/ports", several), "EndpointSlice": _set("ports", ports)}
    found = translated(shop(**changes)).slices[0].spec["ports"]
    assert [(port["name"], port["port"]) for port in found] == [("81", 9000), ("80", 8080)]


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        *keys, last = path.split("/")
        for key in keys:
            content = content[int(key) if isinstance(content, list) else key]
        content[last] = value

    return change


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        pytest.param(
            {"HTTPRoute": _set("spec/parentRefs", [{"name": "wbe"}])},
            "NoMatchingParent",
            "there is no Gateway shop/wbe",
            id="unknown-parent",
        ),
        pytest.param(
            {"HTTPRoute": _set("spec/parentRefs", [{"name": "web", "sectionName": "https"}])},
            "NoMatchingParent",
            "its listeners: http",
            id="unknown-listener",
        ),
        pytest.param(
            {"Gateway": _set("spec/listeners/0/hostname", "a.example.org")},
            "NoMatchingListenerHostname",
            "a.example.org",
            id="hostname",
        ),
        pytest.param(
            {"HTTPRoute": _set("metadata/namespace", "other")},
            "NoMatchingParent",
            "other/web",
            id="other-namespace",
        ),
        pytest.param(
            {
                "HTTPRoute": lambda c: (
                    c["metadata"].update(namespace="other"),
                    c["spec"]["parentRefs"][0].update(namespace="shop"),
                )
            },
            "NotAllowedByListeners",
            "do not admit namespace 'other'",
            id="namespace-not-admitted",
        ),
        pytest.param(
            {"HTTPRoute": _set("spec/parentRefs", [{"name": "web"}, {"name": "web", "kind": "ListenerSet"}])},
            "UnsupportedValue",
            "parents of kind ListenerSet are not served, only those of kind Gateway",
            id="parent-kind",
        ),
        pytest.param(
            {"HTTPRoute": _set("spec/rules/0/backendRefs/0/kind", "Bucket")},
            "InvalidKind",
            "Bucket",
            id="backend-kind",
        ),
        pytest.param(
            {"HTTPRoute": _set("spec/rules/0/backendRefs/0/port", 81)},
            "BackendNotFound",
            "it has 80",
            id="backend-port",
        ),
        pytest.param(
            {"HTTPRoute": _set("spec/rules/0/backendRefs/0/namespace", "bank")},
            "RefNotPermitted",
            "Service bank/web",
            id="backend-namespace",
        ),
        pytest.param(
            {"Gateway": _set("spec/listeners/0/protocol", "SPDY")},
            "UnsupportedProtocol",
            "'SPDY' is none of HTTP",
            id="protocol",
        ),
        pytest.param(
            {"EndpointSlice": _set("endpoints/0/nodeName", "node9")},
            "Invalid",
            "node9=ADDRESS",
            id="unknown-node",
        ),
        pytest.param(
            {"EndpointSlice": _set("metadata/labels", {})},
            "Invalid",
            "kubernetes.io/service-name",
            id="no-service",
        ),
        pytest.param(
            {"GatewayClassConfig": _set("spec/epic/service-key", "")},
            "InvalidParameters",
            "service-key is missing",
            id="no-key",
        ),
    ],
)
def test_problems_are_named(changes: dict[str, Any], reason: str, words: str) -> None:
    found = translated(shop(**changes)).problems
    assert [p for p in found if p.reason == reason and words in p.message and not p.is_warning], found


@pytest.mark.parametrize(
    ("parents", "is_warning"),
    [
        ([{"name": "web"}, {"name": "web", "kind": "Service", "group": ""}], True),
        ([{"name": "web"}, {"name": "mesh", "kind": "Mesh", "group": "example.org"}], True),
        # Of the Gateway API itself: what it asks for is not done.
        ([{"name": "web"}, {"name": "more", "kind": "ListenerSet"}], False),
        ([{"name": "web"}, {"name": "more", "kind": "XListenerSet", "group": X_GROUP}], False),
        # Nothing of the route is served.
        ([{"name": "web", "kind": "Service", "group": ""}], False),
    ],
)
def test_a_parent_that_is_for_a_mesh_beside_a_gateway_is_no_fault(
    parents: list[dict[str, Any]], is_warning: bool
) -> None:
    (problem,) = translated(shop(HTTPRoute=_set("spec/parentRefs", parents))).problems
    assert (problem.reason, problem.is_warning) == ("UnsupportedValue", is_warning)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("filters", [{"type": "ExtensionRef", "extensionRef": {"kind": "Auth", "name": "a"}}], "filters"),
        ("matches", [{"path": {"value": "/admin"}, "method": "GET"}], "method 'GET'"),
        ("matches", [{"queryParams": [{"name": "token", "value": "secret"}]}], "query parameters"),
    ],
)
def test_a_route_is_not_sent_without_what_restricts_it(field: str, value: object, words: str) -> None:
    found = translated(shop(HTTPRoute=_set(f"spec/rules/0/{field}", value)))
    assert not found.routes
    assert [p for p in found.problems if p.reason == "UnsupportedValue" and words in p.message]


def test_a_backend_elsewhere_gets_a_name_that_no_service_has() -> None:
    change = _set("spec/rules/0/backendRefs/0/namespace", "bank")
    (route,) = translated(shop(HTTPRoute=change)).routes
    (backend,) = route.spec["http"]["rules"][0]["backendRefs"]
    assert backend["name"] != object_uid("lab", Ref("Service", "bank", "web"))
    assert "namespace" not in backend


def test_the_age_of_a_clients_object_goes_along_with_it() -> None:
    change = _set("metadata/creationTimestamp", "2026-01-02T03:04:05Z")
    (route,) = translated(shop(HTTPRoute=change)).routes
    assert route.spec["clientRef"]["creationTimestamp"] == "2026-01-02T03:04:05+00:00"
    (ageless,) = translated(shop(HTTPRoute=_set("metadata/creationTimestamp", None))).routes
    assert "creationTimestamp" not in ageless.spec["clientRef"]


def test_fields_that_are_not_known_are_a_problem_of_what_is_sent_without_them() -> None:
    found = translated(shop(HTTPRoute=_set("spec/hostname", "a.b"), Gateway=_set("spec/colour", "red")))
    assert len(found.routes) == 1
    said = {problem.object: (problem.reason, problem.message) for problem in found.problems}
    assert said == {
        "HTTPRoute shop/web": ("UnknownField", "spec.hostname is not known and ignored"),
        "Gateway shop/web": ("UnknownField", "spec.colour is not known and ignored"),
    }


def test_a_backend_port_that_the_service_has_not_leads_nowhere() -> None:
    (route,) = translated(shop(HTTPRoute=_set("spec/rules/0/backendRefs/0/port", 81))).routes
    (backend,) = route.spec["http"]["rules"][0]["backendRefs"]
    assert backend["name"] != SERVICE_UID


def test_other_nodes_addresses_come_from_the_annotation() -> None:
    def change(content: dict[str, Any]) -> None:
        content["endpoints"][0]["nodeName"] = "node9"
        content["metadata"]["annotations"] = {
            "puregw.epic-gateway.org/node-addresses": "node9=10.0.0.9, node8=10.0.0.8"
        }

    assert translated(shop(EndpointSlice=change)).slices[0].spec["nodeAddresses"] == {"node9": "10.0.0.9"}


def ipv6(content: dict[str, Any]) -> None:
    content["addressType"] = "IPv6"
    content["endpoints"] = [{"addresses": ["2001:db8::b"]}]


def test_ipv6_slices_are_passed_on_from_hosts_of_either_family() -> None:
    for own in ("192.168.50.11", "2001:db8:1::7"):
        (found,) = translated(shop(EndpointSlice=ipv6), replace(HOST, node_address=own)).slices
        assert found.spec["addressType"] == "IPv6"
        assert found.spec["endpoints"] == [{"addresses": ["2001:db8::b"], "nodeName": "node1"}]
        assert found.spec["nodeAddresses"] == {"node1": own}


@pytest.mark.parametrize(
    ("kind", "address", "words"),
    [
        ("IPv4", "2001:db8::b", "'2001:db8::b' is no IPv4 address"),
        ("IPv6", "10.0.0.1", "'10.0.0.1' is no IPv6 address"),
        ("IPv6", "::ffff:10.0.0.1", "is an IPv4-mapped address; write 10.0.0.1"),
        ("IPv6", "fe80::1%eth0", "has a zone id"),
        ("IPv4", "127.0.0.1", "is a loopback address"),
    ],
)
def test_an_address_that_cannot_be_an_endpoints_is_told(kind: str, address: str, words: str) -> None:
    def change(content: dict[str, Any]) -> None:
        content["addressType"] = kind
        content["endpoints"] = [{"addresses": [address]}]

    found = translated(shop(EndpointSlice=change))
    assert [p.message for p in found.problems if words in p.message], found.problems
    assert found.slices[0].spec["endpoints"] == []


def test_the_order_of_the_objects_does_not_matter() -> None:
    assert translated(shop()) == translated(shop()[::-1])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"kind": "Ingress", "apiVersion": "networking.k8s.io/v1"}, "known are"),
        (
            {"kind": "Gateway", "apiVersion": "gateway.networking.k8s.io/v1", "metadata": {"name": "x"}},
            "spec",
        ),
        (
            {
                "kind": "HTTPRoute",
                "apiVersion": "gateway.networking.k8s.io/v1",
                "metadata": {"name": "x"},
                "spec": {"rules": [{"matches": [{"path": {"type": "Regex"}}]}]},
            },
            "spec.rules.0.matches.0.path.type",
        ),
    ],
)
def test_a_document_that_is_not_understood_says_where(content: dict[str, Any], words: str) -> None:
    _, (problem,) = parse([Document("a.yaml", content)])
    assert words in problem.message
    assert isinstance(problem, Problem)


def test_secrets_stay_out_of_messages() -> None:
    content = shop()[0]
    content["spec"]["epic"]["service-key"] = {"oops": "s3cret"}
    _, (problem,) = parse([Document("a.yaml", content)])
    assert "s3cret" not in str(problem)


def test_the_settings_of_a_host_name_it() -> None:
    assert HOST.node_name in translated(shop()).slices[0].spec["nodeAddresses"]


def test_a_slice_belongs_to_the_account_of_its_namespace_where_routes_are_elsewhere() -> None:
    def other(content: dict[str, Any]) -> dict[str, Any]:
        epic = {**content["spec"]["epic"], "user-namespace": "acme"}
        return {**content, "metadata": {"name": "epic", "namespace": "acme"}, "spec": {"epic": epic}}

    contents = shop(HTTPRoute=None, Gateway=None)
    found = translated([*contents, other(contents[0])])
    assert [item.connection.account for item in found.slices] == ["shop"]
    assert not found.problems


def test_a_route_of_a_gateway_that_cannot_be_seen_is_held() -> None:
    objects, _ = parse(Document("shop.yaml", content) for content in shop(Gateway=None))
    for unseen, held in (
        (Unseen(refs=frozenset({Ref("Gateway", "shop", "web")})), True),
        (Unseen(files=frozenset({"broken.yaml"})), True),
        (Unseen(), False),
    ):
        found = Translator(Objects(objects), HOST).update(None, unseen)
        assert (Ref("HTTPRoute", "shop", "web") in found.held) is held
