# SPDX-License-Identifier: Apache-2.0
"""Beds with Envoys in their instances: one for all tests, and one for each module with another plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from bed import NODES, Bed, Plan
from namespaces import eventually
from serving import ENVOY, Serving
from steering import Site, Steering

SHARED = Plan()
Build = Callable[[Plan], AbstractContextManager[Site]]


@pytest.fixture(scope="session")
def build(bpffs: Path, object_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A bed of a plan, with what serves in it."""
    if not ENVOY.exists():
        pytest.skip("the pinned Envoy is not installed")

    @contextmanager
    def built(plan: Plan) -> Iterator[Site]:
        serving_in = tmp_path_factory.mktemp("serving")
        bed = Bed(bpffs / serving_in.name, object_file, plan)
        try:
            with Serving(bed, serving_in) as serving:
                yield Site(bed, serving, Steering(bed))
        finally:
            bed.close()

    return built


@pytest.fixture(scope="session")
def shared_site(build: Build) -> Iterator[Site]:
    """The bed of the plan that most tests want."""
    with build(SHARED) as made:
        yield made


@pytest.fixture(scope="module")
def made_site(request: pytest.FixtureRequest, build: Build) -> Iterator[Site]:
    """The shared bed, or one for each of the plans that are this fixture's parameters."""
    plan = getattr(request, "param", SHARED)
    if plan == SHARED:
        yield request.getfixturevalue("shared_site")
    else:
        with build(plan) as made:
            yield made


@pytest.fixture
def site(made_site: Site) -> Iterator[Site]:
    """All nodes announced and siblings of each other, packets routed by their hash, no sockets left."""
    made_site.steering.clear()
    made_site.bed.route(range(NODES))
    made_site.bed.link(range(NODES))
    yield made_site
    made_site.steering.clear()
    for node in made_site.bed.nodes:
        node.abort_clients()
    assert eventually(lambda: not made_site.bed.client_states()), made_site.bed.client_states()
