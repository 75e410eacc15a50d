# SPDX-License-Identifier: Apache-2.0
"""A client's write changes what is the client's, and nothing that is EPIC's."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kind_samples import objects, sample

from epic.kinds.kind import Kind
from epic.kinds.registry import GW_PROXY, KINDS, NODE
from epic.kinds.strategy import (
    OWN_PREFIX,
    prepare_for_create,
    prepare_for_status,
    prepare_for_update,
)
from epic.model.base import Metadata, Resource
from epic.model.nodes import NodeStatus
from epic.model.resources import GWProxyStatus, Node, NodeSpec

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)


@st.composite
def pairs(draw: st.DrawFn, kinds: Iterable[Kind[Any]] = KINDS) -> tuple[Resource, Resource]:
    """What a client gives and what is stored, of one kind."""
    kind = draw(st.sampled_from(list(kinds)))
    return draw(objects([kind])), draw(objects([kind]))


def status(obj: Resource) -> object:
    return getattr(obj, "status", None)


def spec(obj: Resource) -> Any:
    return getattr(obj, "spec")  # noqa: B009


def epics(texts: dict[str, str]) -> dict[str, str]:
    return {key: text for key, text in texts.items() if key.startswith(OWN_PREFIX)}


@given(objects())
def test_what_is_created_has_nothing_of_epics(given: Resource) -> None:
    kind = KINDS.of(given)
    created = prepare_for_create(kind, given, NOW)
    fresh = type(given)(metadata=Metadata(name="x"), spec=spec(given))  # type: ignore[call-arg]
    assert status(created) == status(fresh)
    assert created.metadata == Metadata(
        name=given.name,
        namespace=given.account,
        labels={k: v for k, v in given.metadata.labels.items() if not k.startswith(OWN_PREFIX)},
        annotations={k: v for k, v in given.metadata.annotations.items() if not k.startswith(OWN_PREFIX)},
        creation_timestamp=NOW,
    )
    for name, info in kind.spec.model_fields.items():
        wanted = info.get_default() if name in kind.filled_in else getattr(spec(given), name)
        assert getattr(spec(created), name) == wanted


@given(pairs())
def test_an_update_changes_nothing_of_epics(pair: tuple[Resource, Resource]) -> None:
    given, stored = pair
    kind = KINDS.of(stored)
    updated = prepare_for_update(kind, given, stored)
    assert status(updated) == status(stored)
    assert (updated.name, updated.account) == (stored.name, stored.account)
    before, after = stored.metadata, updated.metadata
    assert after.creation_timestamp == before.creation_timestamp
    assert after.deletion_timestamp == before.deletion_timestamp
    assert after.resource_version == given.metadata.resource_version
    assert epics(after.labels) == epics(before.labels)
    assert epics(after.annotations) == epics(before.annotations)
    for name in kind.filled_in:
        assert getattr(spec(updated), name) == getattr(spec(stored), name)
    assert after.generation == before.generation


@given(pairs())
def test_an_update_takes_all_that_is_the_clients(pair: tuple[Resource, Resource]) -> None:
    given, stored = pair
    kind = KINDS.of(stored)
    updated = prepare_for_update(kind, given, stored)
    for name in kind.spec.model_fields.keys() - kind.filled_in - kind.kept:
        assert getattr(spec(updated), name) == getattr(spec(given), name)
    clients = {k: v for k, v in given.metadata.labels.items() if not k.startswith(OWN_PREFIX)}
    assert updated.metadata.labels == {**clients, **epics(stored.metadata.labels)}


@given(pairs([kind for kind in KINDS if "status" in kind.model.model_fields]))
def test_a_status_is_a_write_of_its_own(pair: tuple[Resource, Resource]) -> None:
    given, stored = pair
    written = prepare_for_status(given, stored)
    assert status(written) == status(given)
    assert spec(written) == spec(stored)
    assert written.metadata == stored.at(given.metadata.resource_version).metadata


@pytest.mark.parametrize("kind", list(KINDS), ids=lambda kind: kind.name)
def test_the_same_again_is_no_change(kind: Kind[Any]) -> None:
    stored = sample(kind, revision=4)
    assert prepare_for_update(kind, stored, stored) == stored


def test_fields_that_a_client_does_not_give_are_kept_where_the_kind_says_so() -> None:
    stored = sample(NODE)
    assert isinstance(stored, Node)
    assert (stored.spec.schedulable, stored.spec.drain) == (False, True)
    given = stored.model_copy(update={"spec": NodeSpec.model_validate({"address": "192.0.2.9"})})
    updated = prepare_for_update(NODE, given, stored)
    assert (str(updated.spec.address), updated.spec.capacity) == ("192.0.2.9", 250)
    assert (updated.spec.schedulable, updated.spec.drain) == (False, True)
    said = NodeSpec.model_validate({"address": "192.0.2.9", "drain": False})
    updated = prepare_for_update(NODE, stored.model_copy(update={"spec": said}), stored)
    assert (updated.spec.schedulable, updated.spec.drain) == (False, False)


def test_a_client_cannot_give_itself_an_address_or_a_status() -> None:
    given = sample(GW_PROXY)
    created = prepare_for_create(GW_PROXY, given, NOW)
    assert created.status == GWProxyStatus()
    assert created.spec.public_address is None
    assert created.spec.endpoints == ()
    assert created.spec.gateway == given.spec.gateway  # type: ignore[attr-defined]
    node = prepare_for_create(NODE, sample(NODE), NOW)
    assert node.status == NodeStatus()


def test_fields_that_epic_fills_in_have_a_default() -> None:
    for kind in KINDS:
        fields = kind.spec.model_fields
        assert all(not fields[name].is_required() for name in kind.filled_in | kind.kept)
