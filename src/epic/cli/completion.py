# SPDX-License-Identifier: Apache-2.0
"""What a shell completes: names of kinds and of objects."""

from __future__ import annotations

from pathlib import Path

import typer

from epic.cli.printing import listing
from epic.cli.session import Session


def complete_kind(incomplete: str) -> list[str]:
    """The kinds that can be shown."""
    return [listed.kind.plural for listed in listing.KINDS if listed.kind.plural.startswith(incomplete)]


def complete_name(context: typer.Context, incomplete: str) -> list[str]:
    """The objects of the kind and account on the line that are not named there yet."""
    named = context.params.get("names") or ()
    found = names(context, str(context.params.get("kind")), str(context.params.get("account") or ""))
    return [name for name in found if name.startswith(incomplete) and name not in named]


def names(context: typer.Context, kind: str, account: str = "") -> list[str]:
    """The names of a kind's objects; none where they cannot be had without asking anybody."""
    # The program's own callback has not run: the session is made from the options on the line.
    try:
        config = context.find_root().params.get("config")
        session = Session(Path(config) if config else None)
        if not session.unattended:
            return []
        rows = listing.fetch(session.client, listing.kind_of(kind).kind, "", account)
    except Exception:  # whatever it is, a shell that completes is no place to say it
        return []
    return [str(row["metadata"]["name"]) for row in rows]
