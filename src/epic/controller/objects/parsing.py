# SPDX-License-Identifier: Apache-2.0
"""Objects from plain documents. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Any

from pydantic import ValidationError

from epic.controller.objects.kinds import KINDS, ClientObject
from epic.controller.objects.refs import Document, Problem, Ref

UNREAD = "InvalidKind"
"""The reason of documents that are of no concern here."""
_ALIKE = 0.85


def parse(documents: Iterable[Document]) -> tuple[list[ClientObject], list[Problem]]:
    """The objects in the documents, and what is wrong with the others."""
    objects: dict[Ref, ClientObject] = {}
    problems: list[Problem] = []
    for document in documents:
        parsed = parse_document(document)
        if isinstance(parsed, Problem):
            problems.append(parsed)
        elif parsed.ref in objects:
            message = f"the same object is also in {objects[parsed.ref].source}; keep one of them"
            problems.append(parsed.problem("Duplicate", message))
        else:
            objects[parsed.ref] = parsed
    return list(objects.values()), problems


def parse_document(document: Document) -> ClientObject | Problem:
    """The object in a document, or what is wrong with it."""
    content = document.content
    kind, name = content.get("kind"), str(ref_of(content) or describe(content))
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None or model.group != _group(content):
        known = ", ".join(f"{c.group or 'v1'} {c.kind}" for c in KINDS.values())
        meant = meant_kind(content)
        message = f"kind {kind!r} of apiVersion {content.get('apiVersion')!r} is not read here; " + (
            f"is {meant.group or 'v1'} {meant.kind} meant?" if meant else f"known are {known}"
        )
        return Problem(document.source, name, "Invalid" if meant else UNREAD, message, document.number)
    try:
        clean = without_nulls(content)
        where = {"source": document.source, "document": document.number}
        return model.model_validate({**clean, **where, "content": clean})
    except ValidationError as error:
        return Problem(document.source, name, "Invalid", explain(error), document.number)


def meant_kind(content: dict[str, Any]) -> type[ClientObject] | None:
    """The kind of a document, also where it is not quite spelled so; None for kinds that are not read."""
    kind, group = content.get("kind"), _group(content)
    if not isinstance(kind, str):
        return None
    found = KINDS.get(kind)
    if found is not None and found.group == group:
        return found
    return next((c for c in KINDS.values() if _alike(c.kind, kind) and _alike(c.group, group)), None)


def _alike(one: str, other: str) -> bool:
    return SequenceMatcher(None, one.casefold(), other.casefold()).ratio() >= _ALIKE


def _group(content: dict[str, Any]) -> str:
    return str(content.get("apiVersion", "")).rpartition("/")[0]


def ref_of(content: dict[str, Any]) -> Ref | None:
    """Which object a document is about, also when it is wrong; None if that cannot be told."""
    model, metadata = meant_kind(content), content.get("metadata")
    if model is None or not isinstance(metadata, dict):
        return None
    name, namespace = metadata.get("name"), metadata.get("namespace") or "default"
    if not isinstance(name, str) or not name or not isinstance(namespace, str):
        return None
    return Ref(model.kind, namespace if model.namespaced else "", name)


def describe(content: dict[str, Any]) -> str:
    """An object's kind and name for messages, as far as it has them."""
    metadata = content.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return f"{content.get('kind') or 'object'} {name or 'without metadata.name'}"


def explain(error: ValidationError) -> str:
    """What is wrong where, without values: they may be secrets."""
    return "; ".join(
        f"{'.'.join(str(part) for part in e['loc']) or 'the object'}: "
        f"{e['msg'].removeprefix('Value error, ').removeprefix('Input ')}"
        for e in error.errors(include_url=False, include_input=False)
    )


def without_nulls(value: Any) -> Any:
    """The value without null fields, which mean absent ones."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    return value
