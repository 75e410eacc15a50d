# SPDX-License-Identifier: Apache-2.0
"""`epicctl delete KIND NAME`: objects by what they are called on EPIC."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from epic.cli.commands.apply import Report
from epic.cli.printing import listing
from epic.cli.printing.fields import Row, dig
from epic.client import PREFIX, EpicClient
from epic.errors import EpicError, Invalid, NotFound
from epic.kinds.kind import Kind
from epic.model.values.naming import SOURCES_ANNOTATION

_KINDS = tuple(listed.kind for listed in listing.KINDS if listed.kind.writer != "epic")
_SHOWN = 5


def kind_of(name: str) -> Kind[Any]:
    """The kind of that name or alias; raises Invalid for one whose objects nobody deletes."""
    kind = listing.kind_of(name).kind
    if kind not in _KINDS:
        raise Invalid(f"{kind.plural} cannot be deleted, only {', '.join(kind.plural for kind in _KINDS)}")
    return kind


def complete_kind(incomplete: str) -> list[str]:
    """The kinds whose objects can be deleted, for a shell."""
    return [kind.plural for kind in _KINDS if kind.plural.startswith(incomplete)]


def delete_named(client: EpicClient, kind: Kind[Any], names: Iterable[str], account: str) -> Report:
    """Delete objects of a kind; one that fails does not stop the others."""
    report = Report()
    for name in names:
        try:
            _delete(client, kind, _one(client, kind, name, account), report)
        except EpicError as error:
            report.failed(str(error))
    return report


def _one(client: EpicClient, kind: Kind[Any], name: str, account: str) -> Row:
    try:
        found = listing.fetch(client, kind, name, account)
    except NotFound as error:
        raise NotFound(f"{error}{_meant(client, kind, name, account)}") from error
    if len(found) > 1:
        owners = ", ".join(str(row["metadata"].get("namespace")) for row in found)
        raise Invalid(
            f"there are {len(found)} {kind.plural} {name!r}, of accounts {owners}; say which with --account"
        )
    return found[0]


def _meant(client: EpicClient, kind: Kind[Any], name: str, account: str) -> str:
    """Which objects stand for a client's object of that name; nothing if none does."""
    rows = listing.fetch(client, kind, "", account)
    meant = [str(row["metadata"]["name"]) for row in rows if dig(row, "spec", "clientRef", "name") == name]
    more = " and others" if len(meant) > _SHOWN else ""
    return f"; {name!r} is the client's name of {', '.join(meant[:_SHOWN])}{more}" if meant else ""


def _delete(client: EpicClient, kind: Kind[Any], row: Row, report: Report) -> None:
    name, account = str(row["metadata"]["name"]), str(row["metadata"].get("namespace") or "")
    path = f"{PREFIX}/{kind.path(account, name)}"
    what = "/".join(filter(None, (kind.singular, account, name)))
    client.delete(path)
    left = client.find(path)
    going = left is not None and dig(left, kind.in_rest.key, "metadata", "deletionTimestamp")
    report.done(what, "is being deleted" if going else "deleted")
    sources = dig(row, "metadata", "annotations", SOURCES_ANNOTATION)
    if sources:
        hosts = ", ".join(str(sources).split(","))
        report.warn(f"{what}: {hosts} ask for it, and make it anew unless it is removed there")
