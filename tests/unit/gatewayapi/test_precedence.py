# SPDX-License-Identifier: Apache-2.0
"""Which of two routes is the older one: that of the client's older object."""

from __future__ import annotations

import pytest

from epic.gatewayapi.precedence import route_age
from epic.model.resources import GWRoute

EARLY, LATE = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def route(came: str, *, created: str | None = None, namespace: str = "shop", name: str = "web") -> GWRoute:
    ref = {"namespace": namespace, "name": name, "creationTimestamp": created}
    metadata = {"name": f"{namespace}-{name}", "namespace": "root", "creationTimestamp": came}
    return GWRoute.model_validate({"metadata": metadata, "spec": {"clientRef": ref, "http": {}}})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(route(LATE, created=EARLY), route(EARLY, created=LATE), id="the client's age counts"),
        pytest.param(route(EARLY), route(LATE), id="without it EPIC's does"),
        pytest.param(route(LATE, created=EARLY), route(LATE), id="one without is as old as on EPIC"),
        pytest.param(route(EARLY, name="a"), route(EARLY, name="b"), id="then the name"),
        pytest.param(
            route(EARLY, namespace="shop-a", name="z"),
            route(EARLY, namespace="shop", name="a"),
            id="namespace and name are one text",
        ),
        pytest.param(
            route(LATE, created="2026-01-01T01:00:00+02:00"), route(EARLY), id="in whatever time zone"
        ),
    ],
)
def test_the_older_route_comes_first(first: GWRoute, second: GWRoute) -> None:
    assert sorted([second, first], key=route_age) == [first, second]
