# SPDX-License-Identifier: Apache-2.0
"""What holds of every test, wherever it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from stores import stores_closed


@pytest.fixture(autouse=True)
def threads_outside() -> Iterator[None]:
    """No thread stays in a network namespace of a test: other tests' connections would begin there."""
    own = Path("/proc/self/ns/net").readlink()
    yield
    inside = []
    for thread in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # it has ended
            if (thread / "ns" / "net").readlink() != own:
                inside.append((thread / "comm").read_text().strip())
    assert not inside, f"threads in a network namespace of the test: {inside}"


@pytest.fixture(autouse=True)
def stores() -> Iterator[None]:
    """No store stays open: its threads would work, and its objects count, in tests that come after."""
    with stores_closed():
        yield
