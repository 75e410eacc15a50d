# SPDX-License-Identifier: Apache-2.0
"""Users as platform teams apply them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epic.model.resources import User


@pytest.fixture
def apply(epicctl: Callable[..., Any], tmp_path: Path) -> Any:
    (tmp_path / "key").write_text("some-password")
    account = "apiVersion: epic.acnodal.io/v1\nkind: Account\nmetadata: {name: x}\n"
    assert epicctl("apply", "-f", "-", stdin=account).returncode == 0

    def apply_user(spec: str) -> str:
        manifest = tmp_path / "user.yaml"
        manifest.write_text(
            f"apiVersion: epic.acnodal.io/v1\nkind: User\nmetadata: {{name: u, namespace: x}}\nspec: {spec}\n"
        )
        done = epicctl("apply", "-f", str(manifest))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().rpartition(" ")[2]

    return apply_user


def test_a_user_speaks_for_the_clusters_of_its_manifest(apply: Any, live_api: Any) -> None:
    def clusters() -> tuple[str, ...]:
        return tuple(live_api.store.get(User, "x", "u").spec.cluster_ids)

    assert (apply("{password-file: key, cluster-ids: [c1]}"), clusters()) == ("created", ("c1",))
    assert (apply("{password-file: key, cluster-ids: [c1]}"), clusters()) == ("unchanged", ("c1",))
    before = live_api.store.get(User, "x", "u").spec.password_hash
    assert (apply("{cluster-ids: [c1, c2]}"), clusters()) == ("configured", ("c1", "c2"))
    assert live_api.store.get(User, "x", "u").spec.password_hash == before
    assert (apply("{password-file: key}"), clusters()) == ("unchanged", ("c1", "c2"))
    assert (apply("{cluster-ids: []}"), clusters()) == ("configured", ())
