# SPDX-License-Identifier: Apache-2.0
"""The structs in C and their twins in Python have the same sizes, down to the padding."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import epic.bpf
from epic.bpf.tables import records

OBJECT = Path(epic.bpf.__file__).with_name("gue.bpf.o")
TWINS = {
    "endpoint": records.ENDPOINT,
    "endpoint6_key": records.ENDPOINT6_KEY,
    "endpoint_key": records.ENDPOINT_KEY,
    "end": records.END,
    "instance": records.INSTANCE,
    "lane": records.LANE,
    "peer": records.PEER,
    "real_key": records.REAL_KEY,
    "settings": records.SETTINGS,
    "siblings": records.SIBLINGS,
    "traffic": records.TRAFFIC,
    "tunnel": records.TUNNEL,
}


def test_structs_are_as_long_in_python_as_in_c() -> None:
    command = ["bpftool", "btf", "dump", "file", str(OBJECT), "format", "raw"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    sizes = {name: int(size) for name, size in re.findall(r"STRUCT '(\w+)' size=(\d+)", shown)}
    assert {name: twin.size for name, twin in TWINS.items()} == {name: sizes[name] for name in TWINS}
