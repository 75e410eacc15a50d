# SPDX-License-Identifier: Apache-2.0
"""Others' text on a terminal or in a log: what these would obey or hide is shown."""

from __future__ import annotations

import json


def escape(text: str, *, lines: bool = False) -> str:
    """The text with all that cannot be printed as JSON writes it; with `lines` it may have several."""
    if lines:
        return "\n".join(map(escape, text.split("\n")))
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _code(c) for c in text)


def _code(character: str) -> str:
    written = json.dumps(character)[1:-1]
    return written if written != character else f"\\u{ord(character):04x}"
