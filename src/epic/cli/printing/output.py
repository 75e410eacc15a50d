# SPDX-License-Identifier: Apache-2.0
"""What epicctl prints. Text of the server is others' text: control characters in it are shown, not obeyed."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Any

import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from epic.cli.printing.fields import Row
from epic.cli.printing.health import Health, Line
from epic.cli.printing.listing import Listed, cells
from epic.printable import escape

console = Console(soft_wrap=True, highlight=False)


class Format(StrEnum):
    """How objects are printed."""

    TABLE = "table"
    YAML = "yaml"
    JSON = "json"


def print_rows(listed: Listed, rows: list[Row], form: Format, *, single: bool) -> None:
    """Print objects; one asked for by name is printed by itself."""
    value: Any = rows[0] if single and len(rows) == 1 else {"items": rows}
    match form:
        case Format.YAML | Format.JSON:
            print_document(value, form)
        case Format.TABLE if not rows:
            console.print(f"There are no {listed.kind.plural}.")
        case Format.TABLE:
            for line in lines_of([title for title, _ in listed.columns], cells(listed, rows)):
                console.print(line)


def print_document(value: Any, form: Format) -> None:
    """Print it as YAML or JSON that means the same whatever it holds."""
    say(json.dumps(value, indent=2, ensure_ascii=False) if form is Format.JSON else _yaml(value))


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip()
    return text if escape(text, lines=True) == text else yaml.safe_dump(value, sort_keys=False).rstrip()


def say(text: str, style: str = "") -> None:
    """Print text of one or more lines."""
    console.print(Text(escape(text, lines=True), style))


def warn(message: object) -> None:
    """Say on standard error what is odd or wrong."""
    print(f"epicctl: {escape(str(message), lines=True)}", file=sys.stderr, flush=True)


def lines_of(titles: list[str], lines: list[list[str]]) -> list[Text]:
    """Aligned columns; nothing is cut off, whatever the terminal's width."""
    lines = [[escape(cell) for cell in line] for line in lines]
    widths = [max(len(line[i]) for line in (titles, *lines)) for i in range(len(titles))]
    texts = [
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in (titles, *lines)
    ]
    return [Text(text, style="" if number else "bold") for number, text in enumerate(texts)]


def print_health(health: Health) -> None:
    """Print how the cluster is."""
    sections = (("Nodes", health.nodes), ("Gateways", health.gateways), ("Last runs", health.runs))
    for title, lines in sections:
        if title == "Gateways" or not health.hidden:
            console.print(_section(title, lines))
    if health.silent:
        console.print(_section("Silent workload nodes", health.silent))
    if health.unreadable:
        console.print(_section("Objects that cannot be read", health.unreadable))
    problems = health.problems
    if problems:
        console.print(Text(f"{len(problems)} problem{'s' * (len(problems) > 1)}:", style="bold red"))
        for problem in problems:
            console.print(Text(f"  {escape(problem)}"))
    else:
        well = "The platform is well." if health.of_accounts else "Everything is well."
        console.print(Text(well, style="bold green"))
    if health.of_accounts:
        console.print(Text("For the accounts to mend:", style="bold"))
        for matter in health.of_accounts:
            console.print(Text(f"  {escape(matter)}"))


def _section(title: str, lines: tuple[Line, ...]) -> Table:
    found = Table(
        title=f"{title} ({len(lines)})", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
    )
    for name in ("Name", "State", "Details"):
        found.add_column(name)
    for line in lines:
        style = "red" if line.problem else ""
        found.add_row(
            Text(escape(line.name)), Text(escape(line.state), style=style), Text(escape(line.details))
        )
    return found
