# SPDX-License-Identifier: Apache-2.0
"""What can go wrong before anything is traced."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from epic.errors import Unavailable
from epic.trace import kernel


def test_a_missing_bcc_is_told_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    path = list(sys.path)
    with pytest.raises(Unavailable, match=r"bcc is not installed \(No module named 'bcc'\).*python3-bpfcc"):
        kernel.load_bcc()
    assert sys.path == path


def test_without_pins_the_agent_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=f"under {tmp_path}: is epic-agent running"):
        kernel.Tracer([], [tmp_path])


def test_only_kernels_that_name_the_drops_of_tc_are_asked_for_them() -> None:
    tc = {80: "SKB_DROP_REASON_TC_INGRESS", 81: "SKB_DROP_REASON_TC_EGRESS"}
    assert kernel.reason_flags(tc) == ["-DTC_INGRESS=80", "-DTC_EGRESS=81", "-DREASONS_NAMED"]
    assert kernel.reason_flags({2: "SKB_DROP_REASON_NO_SOCKET"}) == ["-DREASONS_NAMED"]
    assert kernel.reason_flags({}) == []


def test_all_versions_of_the_programs_are_read() -> None:
    text = kernel.source([Path("/pins/a"), Path("/pins/b")])
    assert '"/pins/a/maps/drops"' in text
    assert '"/pins/b/maps/tunnels"' in text
    assert "#define COMPARE compare0(found); compare1(found);\n" in text
