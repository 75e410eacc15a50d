# SPDX-License-Identifier: Apache-2.0
"""The registry: names, what is derived of it, and objects of any kind through store and cache."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from kind_samples import objects, sample
from pydantic import BaseModel

from epic.cache.feed import Cache
from epic.cache.kinds import cached_kind, fed_kind
from epic.cache.views import Entry, Fault, KindView
from epic.errors import Invalid
from epic.kinds.kind import Kind
from epic.kinds.registry import ACCOUNT, GW_ENDPOINT_SLICE, GW_PROXY, GW_ROUTE, KINDS, TUNNEL, Registry
from epic.model.base import Resource
from epic.model.resources import Account, Node
from epic.model.values import naming
from epic.store.embedded.engine import SqliteEngine
from epic.store.kinds import read_of, schema_of, write_of
from epic.store.object_store import ObjectStore
from epic.store.objects import Key, Put, Stored


def subclasses(model: type[Resource]) -> Iterable[type[Resource]]:
    for one in model.__subclasses__():
        yield one
        yield from subclasses(one)


def test_every_kind_of_object_is_registered() -> None:
    models = {model for model in subclasses(Resource) if model.__module__.startswith("epic.model")}
    assert {kind.model for kind in KINDS} == models
    assert all(KINDS[kind.name] is kind and KINDS.of_model(kind.model) is kind for kind in KINDS)


def test_a_name_is_that_of_one_kind() -> None:
    for kind in KINDS:
        for name in kind.names:
            assert KINDS.find(name.upper()) is kind
    assert KINDS.find("gateways") is KINDS.find("gwp") is KINDS.find("proxy") is GW_PROXY
    assert KINDS.find("gwproxies") is GW_PROXY
    assert KINDS.find("banana") is None
    with pytest.raises(ValueError, match="'accounts' is both Account and Tunnel"):
        Registry([ACCOUNT, replace(TUNNEL, plural="accounts")])


def test_names_fit_a_url_and_a_shell() -> None:
    for kind in KINDS:
        assert all(name == name.lower() and name.replace("-", "").isalnum() for name in kind.names)
        assert kind.resource.isalpha()


def test_paths_are_those_of_the_rest_api() -> None:
    assert GW_PROXY.path("root", "U1") == "accounts/root/proxies/U1"
    assert KINDS.of_collection("nodes").path("") == "nodes"
    with pytest.raises(ValueError, match="no collection of tunnels"):
        TUNNEL.path("root")


def test_a_wrong_name_is_refused_with_what_would_be_right() -> None:
    assert KINDS.check_name(Account, "a" * 40, "here") == "a" * 40
    for name in ("a" * 41, "", "-a", "A", "a.b", "a/b", "a\n"):
        with pytest.raises(
            Invalid, match=r"^here: .* kind Account; such a name has 1 to 40 lower-case letters"
        ):
            KINDS.check_name(Account, name, "here")
    for name in ("Node.1_x", "n" * 63):
        assert KINDS.check_name(Node, name, "here") == name
    for name in ("n" * 64, "..", "a/b", "a%2f", "n\n"):
        with pytest.raises(Invalid, match=r"^here: .* 1 to 63 letters"):
            KINDS.check_name(Node, name, "here")


def test_object_names_are_those_of_the_model() -> None:
    assert ACCOUNT.named.pattern == naming.ACCOUNT_PATTERN


@pytest.mark.parametrize("kind", list(KINDS), ids=lambda kind: kind.name)
def test_a_sample_has_something_in_every_field(kind: Kind[Any]) -> None:
    """So that what is tested with samples is tested of every field."""

    def empty_fields(value: object, path: str) -> Iterable[str]:
        if isinstance(value, BaseModel):
            for name, info in type(value).model_fields.items():
                inner = getattr(value, name)
                if not info.is_required() and inner == info.get_default(call_default_factory=True):
                    yield f"{path}.{name}"
                yield from empty_fields(inner, f"{path}.{name}")
        elif isinstance(value, tuple):
            for item in value:
                yield from empty_fields(item, f"{path}[]")
        elif isinstance(value, dict):
            for item in value.values():
                yield from empty_fields(item, f"{path}[]")

    obj = sample(kind, revision=5)
    # One port is as good as another, and these have one value each.
    known = ("epic_port.port", "epic_port.protocol", "epic_port.app_protocol", "epic_port", "playbook")
    known += (".namespace", "[].type", "[].group", "addresses[].type")
    assert [field for field in empty_fields(obj, kind.name) if not field.endswith(known)] == []


@given(objects())
def test_any_object_is_the_same_after_it_was_stored(obj: Resource) -> None:
    kind = KINDS.of(obj)
    schema = schema_of(KINDS)
    put = write_of(kind, obj)
    envelope = schema.decode(kind.name, schema.encode(kind.name, put.labels, put.body))
    assert (put.expected, dict(envelope.labels)) == (obj.metadata.resource_version, obj.metadata.labels)
    stored = Stored(put.key, obj.metadata.resource_version, envelope.body, envelope.labels, envelope.form)
    assert read_of(kind, stored) == obj
    # Where it lies says nothing of the revision: that is the store's to give.
    assert put.body == write_of(kind, obj.at(99)).body


def renamed(found: dict[str, Any]) -> dict[str, Any]:
    spec = {**found["spec"], "addressType": found["spec"]["family"]}
    del spec["family"]
    return {**found, "spec": spec}


def with_family(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "spec": {"family": "IPv6", **found["spec"]}}


def test_each_older_form_is_converted_step_by_step() -> None:
    kind = replace(GW_ENDPOINT_SLICE, form=3, conversions={1: with_family, 2: renamed})
    third = schema_of([kind])
    bodies = {1: b'{"spec":{}}', 2: b'{"spec":{"family":"IPv6"}}', 3: b'{"spec":{"addressType":"IPv6"}}'}
    for form, body in bodies.items():
        stored = schema_of([replace(kind, form=form)]).encode(kind.name, {}, body)
        envelope = third.decode(kind.name, stored)
        assert (envelope.form, envelope.body) == (form, bodies[3])


@pytest.mark.parametrize("kind", list(KINDS), ids=lambda kind: kind.name)
def test_every_form_that_is_read_leads_to_the_newest(kind: Kind[Any]) -> None:
    oldest = min(kind.conversions, default=kind.form)
    assert sorted(kind.conversions) == list(range(oldest, kind.form))


@pytest.mark.parametrize("kind", list(KINDS), ids=lambda kind: kind.name)
def test_an_object_is_found_by_each_of_its_indexes(kind: Kind[Any]) -> None:
    obj = sample(kind)
    view: KindView[Any] = KindView.empty(cached_kind(kind))
    view = view.changed(obj.account, obj.name, Entry(obj.account, obj.name, 1, obj))
    for index, values in kind.indexes.items():
        found = list(values(obj))
        assert found, f"the sample has nothing for {index}"
        assert all(list(view.by(index, value)) == [obj] for value in found)
    view = view.changed(obj.account, obj.name, None)
    for index, values in kind.indexes.items():
        assert all(list(view.by(index, value)) == [] for value in values(obj))


def test_indexes_are_by_what_is_looked_for() -> None:
    def values(kind: Kind[Any], index: str) -> set[object]:
        return set(kind.indexes[index](sample(kind)))

    assert values(GW_PROXY, "node") == {"epic1"}
    assert values(GW_PROXY, "address") == {"203.0.113.9", "2001:db8::9", "100.64.0.9"}
    assert values(GW_PROXY, "group") == {("root", "gatewayhttp")}
    assert values(GW_ROUTE, "gateway") == {("root", "U1")}
    assert values(GW_ROUTE, "service") == {("root", "S1")}
    assert values(GW_ENDPOINT_SLICE, "service") == {("root", "S1")}
    assert values(TUNNEL, "gateway") == {("root", "U1")}
    assert values(TUNNEL, "workload-node") == {("root", "c1", "n1")}


def test_what_is_stored_under_another_name_cannot_be_read() -> None:
    put = write_of(GW_ROUTE, sample(GW_ROUTE))
    found = fed_kind(GW_ROUTE).read(Stored(Key("GWRoute", "other", "U1"), 3, put.body))
    assert isinstance(found, Fault)
    assert found.reason == "ValueError: it is called root/U1"


async def test_a_cache_over_a_store_has_the_objects_of_all_kinds(tmp_path: Path) -> None:
    store = ObjectStore(await SqliteEngine.open(tmp_path / "objects.db"), schema_of(KINDS))
    revision = await store.commit(*(write_of(kind, sample(kind)) for kind in KINDS))
    revision = await store.commit(Put(Key("GWRoute", "root", "broken"), b'{"metadata":{}}', 0))
    cache = Cache(store, map(fed_kind, KINDS))
    task = asyncio.create_task(cache.run())
    snapshot = await cache.reach(revision)
    for kind in KINDS:
        (found,) = snapshot.of(cached_kind(kind)).list()
        assert found.at(0) == sample(kind)
        assert KINDS.of(found) is kind
    assert snapshot.of(cached_kind(GW_ROUTE)).fault("root", "broken") is not None
    task.cancel()
    await store.close()
