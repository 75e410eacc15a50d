# SPDX-License-Identifier: Apache-2.0
"""Lists of siblings as they come: what makes no sense is refused, what is good is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from agent_samples import SIBLINGS, WEB, instance_message, siblings_message

from epic.ads import snapshot
from epic.ads.snapshot import versioned
from epic.agent.gateway.chance.siblings import read_siblings
from epic.agent.gateway.control import storage
from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.runtime import store
from epic.proto import epic_pb2


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (siblings_message(gateway="no gateway"), "gateway"),
        (siblings_message(public_addresses=["web"]), "web"),
        (siblings_message(siblings=[SIBLINGS[0], SIBLINGS[0]]), "the same index"),
        (
            siblings_message(siblings=[epic_pb2.Sibling(node="a", index=16, address="192.0.2.1")]),
            "0 to 15",
        ),
        (siblings_message(siblings=[epic_pb2.Sibling(node="a", index=1, address="a")]), "'a'"),
        (
            siblings_message(
                siblings=[epic_pb2.Sibling(node=f"n{i}", index=i, address=f"192.0.2.{i}") for i in range(17)]
            ),
            "there can be 16",
        ),
        (siblings_message(keys=[]), "at least one key"),
        (siblings_message(keys=[epic_pb2.Key(epoch=1, secret=b"short")]), "5 bytes"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(message: epic_pb2.Siblings, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_siblings(message, "v1")


def test_what_is_said_of_siblings_or_of_the_instance_is_looked_at() -> None:
    cache = cached(lambda _: None)
    assert cache.dirty.siblings == {WEB}
    for type_url, resource in ((snapshot.SIBLINGS, None), (snapshot.INSTANCE, versioned(instance_message()))):
        cache.dirty.siblings.clear()
        cache.update(type_url, {WEB: resource} if resource else {}, [] if resource else [WEB])
        assert cache.dirty.siblings == {WEB}


def cached(change: Callable[[ResourceCache], None]) -> ResourceCache:
    cache = ResourceCache()
    cache.update(snapshot.SIBLINGS, {WEB: versioned(siblings_message())})
    change(cache)
    return cache


def test_a_refused_list_leaves_the_one_before() -> None:
    bad = versioned(siblings_message(keys=[]))
    cache = cached(lambda c: (c.update(snapshot.SIBLINGS, {WEB: bad}), None)[1])
    assert cache.siblings[WEB].version == versioned(siblings_message()).version
    assert cache.versions(snapshot.SIBLINGS) == {WEB: cache.siblings[WEB].version}
    assert "Siblings shop.web" in cache.refused[snapshot.SIBLINGS, WEB]


def test_a_list_goes_by_its_name_and_with_the_node() -> None:
    assert cached(lambda c: (c.update(snapshot.SIBLINGS, {}, [WEB]), None)[1]).siblings == {}
    assert cached(ResourceCache.clear).siblings == {}


def test_siblings_are_there_again_after_a_restart(tmp_path: Path) -> None:
    resources = {WEB: versioned(siblings_message())}
    store.write(tmp_path, storage.rows(snapshot.SIBLINGS, resources))
    found = storage.load(tmp_path)
    assert found is not None
    assert found.siblings[WEB] == read_siblings(siblings_message(), resources[WEB].version)
    assert "\\x" not in repr(found.siblings)
