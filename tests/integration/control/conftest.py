# SPDX-License-Identifier: Apache-2.0
"""epic-control on each kind of store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "model"))

from control_process import ControlProcess
from control_stores import ENGINES, store_of

from epic.store.location import StoreLocation

Start = Callable[..., ControlProcess]


@pytest.fixture(params=ENGINES)
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreLocation]:
    """An empty store."""
    with store_of(request.param, tmp_path) as location:
        yield location


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts epic-control on a store with the usual content; `faults` is code that it runs before."""
    started: list[ControlProcess] = []

    def start_on(location: StoreLocation, faults: str = "") -> ControlProcess:
        control = ControlProcess(tmp_path / "control", location, faults)
        started.append(control)
        control.prepare()
        control.start()
        return control

    yield start_on
    for control in started:
        control.stop()
