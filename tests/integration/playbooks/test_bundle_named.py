# SPDX-License-Identifier: Apache-2.0
"""A site that names a bundle which is not there is told so first, and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_management_networks import play

NAMED = ("--extra-vars", "cluster_bundle_build=false", "--extra-vars")


@pytest.mark.parametrize("tasks", ["base/preflight", "base/bundle"])
@pytest.mark.parametrize("name", ["nosuch.tar", "nosuch", ""])
def test_a_bundle_that_is_not_there_is_refused(tmp_path: Path, tasks: str, name: str) -> None:
    place = str(tmp_path / name) if name else ""
    said = play(tmp_path, "epic_control", tasks, *NAMED, f"cluster_bundle='{place}'")
    assert (
        f"There is no bundle at {place or '(cluster_bundle is empty)'} on the Ansible controller" in said
    ), said
    assert "such as cluster_bundle: /srv/epic/epic-" in said
    assert "Cannot open" not in said
    assert "failed=1" in said


@pytest.mark.parametrize("file", ["epic.tar", "bundle/manifest.json"])
def test_a_bundle_that_is_there_is_no_fault(tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("{}")
    named = tmp_path / file.partition("/")[0]
    said = play(tmp_path, "linux_clients", "base/preflight", *NAMED, f"cluster_bundle='{named}'")
    assert "There is no bundle" not in said, said
