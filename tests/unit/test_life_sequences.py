# SPDX-License-Identifier: Apache-2.0
"""Random lives of gateways and nodes: nothing ever leads to another's Envoy, and nothing stays behind.

`EPIC_LIFE_SEQUENCES=1000` plays more of them; `EPIC_LIFE_SEED=N` plays the one of that seed again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from life_model import Model
from life_plant import Clock, use_clock
from life_sequences import finish, play

from epic.reconcile.tunnels.tunnelling import Budget

_BLOCKS = 10
_BUDGET = Budget.__init__.__defaults__
_SEQUENCES = int(os.environ.get("EPIC_LIFE_SEQUENCES", "30"))
_SEED = os.environ.get("EPIC_LIFE_SEED")


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory: what is tested is not the disk."""
    shared = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        yield Path(name)


def seeds(block: int) -> list[int]:
    return [int(_SEED)] if _SEED else list(range(block, _SEQUENCES, _BLOCKS))


@pytest.mark.parametrize("block", range(1 if _SEED else _BLOCKS))
def test_whatever_happens_nothing_leads_to_anothers_and_nothing_stays(
    block: int, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    use_clock(monkeypatch, clock)
    for seed in seeds(block):
        # In every other one tunnels are made and deleted two at a time.
        monkeypatch.setattr(Budget.__init__, "__defaults__", (2, 1, 1) if seed // _BLOCKS % 2 else _BUDGET)
        directory = memory / str(seed)
        directory.mkdir()
        model = Model(directory, clock)
        play(model, seed)
        finish(model, seed)
        model.store.close()
