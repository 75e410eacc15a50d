# SPDX-License-Identifier: Apache-2.0
"""Who shares a gateway decides on whose routes it serves: its configuration is made anew with its members."""

from __future__ import annotations

import json
from typing import Any

import pytest

from epic.ads.desired.configurations import Key, key_of
from epic.ads.desired.objects import ObjectIndex
from epic.ads.desired.unseen import Unseen
from epic.gatewayapi.translate import translate
from epic.model.base import Resource
from epic.model.members import GWMember
from epic.model.resources import GWProxy, GWRoute
from epic.model.values.naming import GatewayId
from epic.store import objects as stored
from epic.store.interface import Change

U1, U2 = GatewayId("root", "U1"), GatewayId("root", "U2")


def gateway(name: str = "U1") -> GWProxy:
    spec = {
        "clientRef": {"clusterID": "c1", "namespace": "shop", "name": "web"},
        "public-address": "203.0.113.1",
        "gateway": {
            "gatewayClassName": "epic",
            "listeners": [{"name": "web", "port": 80, "protocol": "HTTP"}],
        },
    }
    return GWProxy.model_validate({"metadata": {"name": name, "namespace": "root"}, "spec": spec})


def route() -> GWRoute:
    client = {"clusterID": "c2", "namespace": "bank", "name": "r"}
    http = {"parentRefs": [{"name": "U1"}], "hostnames": ["a.example.com"]}
    metadata = {"name": "R1", "namespace": "root"}
    return GWRoute.model_validate({"metadata": metadata, "spec": {"clientRef": client, "http": http}})


def member(namespace: str = "bank", of: str = "U1", **spec: Any) -> GWMember:
    client = {"clusterID": "c2", "namespace": namespace, "name": "web"}
    metadata = {"name": "M2", "namespace": "root"}
    return GWMember.model_validate(
        {"metadata": metadata, "spec": {"clientRef": client, "sharing-key": of, **spec}}
    )


def change_of(obj: Resource, *, gone: bool = False) -> Change:
    return Change(1, obj.kind, obj.account, obj.name, None if gone else obj)


def index_of(*objects: Resource) -> ObjectIndex:
    found = ObjectIndex()
    for obj in objects:
        found.apply(change_of(obj))
    return found


def served(objects: ObjectIndex) -> tuple[Key, bool]:
    """What the configuration depends on, and whether it has the route."""
    inputs = objects.inputs(U1)
    assert inputs is not None
    (status,) = translate(inputs.proxy, inputs.routes, [], members=inputs.members).parents
    return key_of(inputs), status.accepted


def test_a_member_that_comes_changes_or_goes_changes_the_configuration_of_its_gateway() -> None:
    objects = index_of(gateway(), route())
    alone, taken = served(objects)
    assert not taken
    assert objects.apply(change_of(member())) == {U1}
    shared, taken = served(objects)
    assert taken
    assert shared != alone
    # What else it asks for changes nothing.
    objects.apply(change_of(member(**{"display-name": "other"})))
    assert served(objects) == (shared, True)
    assert objects.apply(change_of(member("fair"))) == {U1}
    moved, taken = served(objects)
    assert not taken
    assert moved != shared
    assert objects.apply(change_of(member(of="U2"))) == {U1, U2}
    assert served(objects) == (alone, False)
    assert objects.apply(change_of(member(of="U2"), gone=True)) == {U2}


def test_a_member_of_another_account_is_none() -> None:
    other = member()
    metadata = other.metadata.model_copy(update={"namespace": "other"})
    objects = index_of(gateway(), route(), other.model_copy(update={"metadata": metadata}))
    assert not served(objects)[1]


@pytest.mark.parametrize(
    ("spec", "newer", "keeps"),
    [
        ({"sharing-key": "U1"}, False, True),
        ({"sharing-key": "U1"}, True, True),
        ({"sharing-key": "U2"}, False, False),
        # It may have been the gateway's, for the name is damaged.
        ({"sharing-key": "U3"}, False, True),
        ({"sharing-key": "U3"}, True, False),
        ({}, False, True),
    ],
)
def test_a_gateway_keeps_its_configuration_while_one_of_its_members_cannot_be_read(
    spec: dict[str, Any], newer: bool, keeps: bool
) -> None:
    objects = index_of(gateway(), gateway("U2"), route())
    inputs = objects.inputs(U1)
    assert inputs is not None
    unseen = Unseen()
    value = b"1\n" + json.dumps({"spec": spec}).encode()
    key = stored.Key(GWMember.kind, "root", "M2")
    unseen.begin_anew([stored.Unreadable(key, 1, "it is damaged", value, newer)], [])
    assert unseen.keeps_configuration(inputs, objects) == keeps
    unseen.release(*key_parts(key))
    assert not unseen.keeps_configuration(inputs, objects)


def key_parts(key: stored.Key) -> tuple[str, str, str]:
    return key.kind, key.account, key.name


def test_another_account_keeps_nothing_for_a_member_that_cannot_be_read() -> None:
    objects = index_of(gateway(), route())
    inputs = objects.inputs(U1)
    assert inputs is not None
    unseen = Unseen()
    unseen.begin_anew([stored.Unreadable(stored.Key(GWMember.kind, "other", "M2"), 1, "damaged")], [])
    assert not unseen.keeps_configuration(inputs, objects)
