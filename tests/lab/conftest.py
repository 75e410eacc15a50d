# SPDX-License-Identifier: Apache-2.0
"""The small lab as fixtures: booted before each test, removed after the last."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_lab import PAIR, SmallLab


@pytest.fixture
def pair() -> dict[str, Any]:
    """The small lab's topology, to change."""
    return copy.deepcopy(PAIR)


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the small lab keeps its topology and keys."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture
def small(directory: Path) -> SmallLab:
    """The small lab, complete and with its usual topology. A test that leaves it so saves time."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    lab = SmallLab(directory)
    play = lab.boot()
    assert play.status == 0, play.output
    return lab


@pytest.fixture(scope="session", autouse=True)
def removed(directory: Path) -> Iterator[None]:
    """No small lab before the tests, and none after them."""
    SmallLab(directory).clean()
    yield
    SmallLab(directory).clean()
