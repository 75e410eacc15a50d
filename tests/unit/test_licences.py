# SPDX-License-Identifier: Apache-2.0
"""Every file that says what it does also says under which licence, and its licence is in the repository."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = {
    "Apache-2.0": "LICENSE",
    "GPL-2.0-only": "LICENSES/GPL-2.0-only.txt",
    "GPL-3.0-or-later": "LICENSES/GPL-3.0-or-later.txt",
}
BPF = "GPL-2.0-only OR Apache-2.0"


def licence_of(path: str) -> str:
    head = (ROOT / path).read_text().splitlines()[:6]
    found = [
        match[1] for line in head if (match := re.search(r"SPDX-License-Identifier: (.*?)( \*/)?$", line))
    ]
    return found[0] if found else ""


def tracked(*patterns: str) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return listed.stdout.splitlines()


@pytest.mark.parametrize(
    ("patterns", "licence"),
    [
        (("bpf/*.c", "bpf/*.h"), BPF),
        (("plugins/module_utils/*.py",), "Apache-2.0"),
        (("src/epic/*.py", "tests/*.py", "tools/*.py", ":!src/epic/proto/*_pb2*"), "Apache-2.0"),
        (("plugins/*.py", ":!plugins/module_utils"), "GPL-3.0-or-later"),
    ],
)
def test_files_name_their_licence(patterns: tuple[str, ...], licence: str) -> None:
    files = tracked(*patterns)
    assert files
    assert {path: licence_of(path) for path in files} == dict.fromkeys(files, licence)


def test_the_licences_texts_are_there() -> None:
    heads = {name: (ROOT / path).read_text()[:200].upper() for name, path in TEXTS.items()}
    assert "APACHE LICENSE" in heads["Apache-2.0"]
    assert "VERSION 2, JUNE 1991" in heads["GPL-2.0-only"]
    assert "VERSION 3, 29 JUNE 2007" in heads["GPL-3.0-or-later"]
