# SPDX-License-Identifier: Apache-2.0
"""`make clean-lab` after the demo and the journeys: the cluster on the lab goes with it, without a trace."""

from __future__ import annotations

import subprocess

import pytest
from remains import remains
from small_lab import ROOT

pytestmark = pytest.mark.root


def test_make_clean_lab_leaves_no_process_mount_namespace_link_or_file() -> None:
    subprocess.run(["make", "clean-lab"], cwd=ROOT, check=True, capture_output=True)
    assert remains("lab", "10.99.0.") == []
    kept = {path.name.partition("-")[0] for path in (ROOT / ".cache/lab").iterdir()}
    assert kept <= {"image", "image.log", "layer"}
