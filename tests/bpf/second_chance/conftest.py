# SPDX-License-Identifier: Apache-2.0
"""The bed with Envoys in its instances, one for all tests of one kind of underlay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bed import NODES, Bed, Plan
from namespaces import eventually
from serving import ENVOY, Serving
from steering import Site, Steering


@pytest.fixture(scope="module")
def made_site(
    request: pytest.FixtureRequest, bpffs: Path, object_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """For the module's `PLAN`, or for each of the plans that are this fixture's parameters."""
    if not ENVOY.exists():
        pytest.skip("the pinned Envoy is not installed")
    plan = getattr(request, "param", Plan())
    bed = Bed(bpffs / "bed", object_file, plan)
    try:
        with Serving(bed, tmp_path_factory.mktemp("serving")) as serving:
            yield Site(bed, serving, Steering(bed))
    finally:
        bed.close()


@pytest.fixture
def site(made_site: Site) -> Iterator[Site]:
    """All nodes announced and siblings of each other, packets routed by their hash, no sockets left."""
    made_site.steering.clear()
    made_site.bed.route(range(NODES))
    made_site.bed.link(range(NODES))
    yield made_site
    made_site.steering.clear()
    assert eventually(lambda: not made_site.bed.client_states()), made_site.bed.client_states()
