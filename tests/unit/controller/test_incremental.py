# SPDX-License-Identifier: Apache-2.0
"""Whatever changes in which order: translating what hangs on it gives what translating everything gives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import HOST

from epic.controller.core import Translator, translate
from epic.controller.desired import Desired
from epic.controller.objects import ClientObject, Document, Objects, Ref, Unseen, parse

GATEWAY_API = "gateway.networking.k8s.io/v1"
CONFIG = "puregw.epic-gateway.org"
NAMES = st.sampled_from("ab")


def _config(account: str, namespace: str) -> dict[str, Any]:
    epic = {
        "gateway-hostname": "epic1:8443",
        "service-account": "u",
        "service-key": "k",
        "user-namespace": account,
        "gateway-template": "http",
    }
    return {
        "apiVersion": f"{CONFIG}/v1",
        "kind": "GatewayClassConfig",
        "metadata": {"name": "c", "namespace": namespace},
        "spec": {"epic": epic},
    }


def _class(name: str, config: str) -> dict[str, Any]:
    ref = {"group": CONFIG, "kind": "GatewayClassConfig", "namespace": config, "name": "c"}
    spec = {"controllerName": "epic-gateway.org/puregw", "parametersRef": ref}
    return {"apiVersion": GATEWAY_API, "kind": "GatewayClass", "metadata": {"name": name}, "spec": spec}


def _gateway(name: str, class_: str, port: int, label: str = "") -> dict[str, Any]:
    listeners: list[dict[str, Any]] = [{"name": "http", "protocol": "HTTP", "port": port}]
    if label:
        rule = {"from": "Selector", "selector": {"matchLabels": {"team": label}}}
        listeners[0]["allowedRoutes"] = {"namespaces": rule}
    spec = {"gatewayClassName": class_, "listeners": listeners}
    metadata = {"name": name, "namespace": "a"}
    return {"apiVersion": GATEWAY_API, "kind": "Gateway", "metadata": metadata, "spec": spec}


def _route(name: str, parents: list[str], services: list[str]) -> dict[str, Any]:
    rules = [{"backendRefs": [{"name": service, "port": 80} for service in services]}]
    spec = {"parentRefs": [{"name": parent} for parent in parents], "rules": rules}
    metadata = {"name": name, "namespace": "a"}
    return {"apiVersion": GATEWAY_API, "kind": "HTTPRoute", "metadata": metadata, "spec": spec}


def _far_route(name: str, namespace: str, service: str) -> dict[str, Any]:
    """A route that needs what namespaces permit, for its Gateway and for its Service."""
    rules = [{"backendRefs": [{"name": service, "namespace": "a", "port": 80}]}]
    spec = {"parentRefs": [{"name": "a", "namespace": "a"}], "rules": rules}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": GATEWAY_API, "kind": "HTTPRoute", "metadata": metadata, "spec": spec}


def _namespace(name: str, team: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": team}}}


def _grant(namespace: str, source: str) -> dict[str, Any]:
    group = GATEWAY_API.partition("/")[0]
    spec = {
        "from": [{"group": group, "kind": "HTTPRoute", "namespace": source}],
        "to": [{"group": "", "kind": "Service"}],
    }
    metadata = {"name": "g", "namespace": namespace}
    return {"apiVersion": GATEWAY_API, "kind": "ReferenceGrant", "metadata": metadata, "spec": spec}


def _service(name: str, port: int) -> dict[str, Any]:
    spec = {"ports": [{"name": "http", "port": port, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "a"}, "spec": spec}


def _slice(name: str, service: str, host: int) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "a", "labels": {"kubernetes.io/service-name": service}}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "endpoints": [{"addresses": [f"192.0.2.{host}"]}],
    }


SOME = st.lists(NAMES, max_size=2, unique=True)
CONTENTS = st.one_of(
    st.builds(_config, NAMES, NAMES),
    st.builds(_class, NAMES, NAMES),
    st.builds(_gateway, NAMES, NAMES, st.sampled_from([80, 81]), st.sampled_from(["", "a", "b"])),
    st.builds(_far_route, NAMES, NAMES, NAMES),
    st.builds(_namespace, NAMES, NAMES),
    st.builds(_grant, NAMES, NAMES),
    st.builds(_route, NAMES, SOME, SOME),
    st.builds(_service, NAMES, st.sampled_from([80, 81])),
    st.builds(_slice, NAMES, NAMES, st.integers(1, 3)),
)
UNSEEN = st.sampled_from(
    [
        Unseen(),
        Unseen(frozenset({Ref("Gateway", "a", "a")})),
        Unseen(frozenset({Ref("ReferenceGrant", "a", "g")})),
        Unseen(frozenset({Ref("Namespace", "", "b")})),
        Unseen(files=frozenset("f")),
    ]
)
STEPS = st.lists(st.tuples(st.lists(CONTENTS, min_size=1, max_size=4), st.booleans(), UNSEEN), max_size=12)


def _object(content: dict[str, Any]) -> ClientObject:
    (found,), problems = parse([Document("x.yaml", content)])
    assert not problems
    return found


def _comparable(desired: Desired) -> dict[str, Any]:
    return {
        "proxies": desired.proxies,
        "slices": sorted(desired.slices, key=lambda item: item.address),
        "routes": sorted(desired.routes, key=lambda item: item.address),
        "connections": set(desired.connections),
        "problems": sorted(desired.problems),
        "held": desired.held,
    }


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_changes_give_what_everything_anew_gives(steps: list[Any]) -> None:
    objects = Objects()
    translator = Translator(objects, HOST)
    for contents, gone, unseen in steps:
        changed = set()
        for content in contents:
            obj = _object(content)
            changed.add(obj.ref)
            if gone:
                objects.remove(obj.ref)
            else:
                objects.put(obj)
        found = translator.update(changed, unseen)
        fresh = Translator(objects, HOST).update(None, unseen)
        assert _comparable(found) == _comparable(fresh)


@pytest.mark.parametrize("kind", ["proxies", "slices", "routes"])
def test_what_does_not_hang_on_a_change_gives_the_same_items(kind: str) -> None:
    contents = [_config("a", "a"), _class("a", "a"), _gateway("a", "a", 80)]
    contents += [
        f(name) for name in "ab" for f in (lambda n: _route(n, ["a"], [n]), lambda n: _service(n, 80))
    ]
    objects = Objects(_object(c) for c in [*contents, *(_slice(name, name, 1) for name in "ab")])
    translator = Translator(objects, HOST)
    before = translator.update(None)
    assert _comparable(before) == _comparable(translate(objects, HOST))
    objects.put(moved := _object(_slice("b", "b", 2)))
    after = translator.update({moved.ref})
    same = [new is old for new, old in zip(getattr(after, kind), getattr(before, kind), strict=True)]
    assert same.count(False) == (1 if kind == "slices" else 0)
