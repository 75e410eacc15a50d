# SPDX-License-Identifier: Apache-2.0
"""docs/kinds.md has the tables that the registry gives. `EPIC_WRITE_DOCS=1` writes them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from epic.kinds.field_limits import limits_of
from epic.kinds.registry import KINDS
from epic.kinds.validation import MOST_BYTES
from epic.model.values.limits import Items, Limit

DOCUMENT = Path(__file__).parents[3] / "docs/kinds.md"


def table(*rows: Iterable[str]) -> str:
    head, *others = [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *others])


def code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def kinds_table() -> str:
    rows = [
        (
            kind.name,
            code(kind.names),
            f"`{kind.path('ACCOUNT')}`" if kind.rest else "",
            f"{kind.scope}",
            kind.writer,
            str(kind.form),
            code(sorted(kind.spec.model_fields[name].alias or name for name in kind.filled_in)),
        )
        for kind in KINDS
    ]
    head = ("Kind", "Names", "In the REST API", "Scope", "Written by", "Form", "Filled in by EPIC")
    return table(head, *rows)


def shown(limit: Limit) -> str:
    if isinstance(limit, Items):
        return f"{limit.most} {limit.what}"
    least = f"{limit.least} to " if limit.least else ""
    return f"{least}{limit.most} characters" + (f": {limit.right}" if limit.right else "")


def limits_table() -> str:
    rows = [
        (kind.name, f"`{path}`", shown(limit))
        for kind in KINDS
        for path, limit in limits_of(kind.spec, "spec").items()
        if kind.writer != "epic"
    ]
    return table(("Kind", "Field", "At most"), *rows)


def test_the_document_has_the_registrys_tables() -> None:
    text = DOCUMENT.read_text()
    wanted = text
    for name, made in (("kinds", kinds_table()), ("limits", limits_table())):
        pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        wanted = pattern.sub(lambda found, made=made: f"{found[1]}{made}\n{found[2]}", wanted)  # type: ignore[misc]
    if os.environ.get("EPIC_WRITE_DOCS"):
        DOCUMENT.write_text(wanted)
    assert DOCUMENT.read_text() == wanted
    assert f"{MOST_BYTES:,} bytes" in text
