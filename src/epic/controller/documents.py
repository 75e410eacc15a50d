# SPDX-License-Identifier: Apache-2.0
"""Read documents from files of YAML or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from epic.controller.objects import CONFIG_GROUP, Document, describe
from epic.errors import Invalid

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_SIZE_MAX = 4 << 20


def manifest_files(directory: Path) -> list[Path]:
    """The manifests in a directory, sorted; editors' and hidden files are none."""
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        raise Invalid(f"{directory}: cannot be read: {error.strerror}") from error
    return [e for e in entries if e.suffix in SUFFIXES and not e.name.startswith(".") and e.is_file()]


def read_file(path: Path) -> list[Document]:
    """The documents of a file; raises Invalid when it cannot be read as a whole."""
    try:
        if path.stat().st_size > _SIZE_MAX:
            raise Invalid(f"{path}: larger than {_SIZE_MAX >> 20} MiB; split it")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Invalid(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}") from error
    return [_with_key(document, path.parent) for document in read_text(text, str(path))]


def read_text(text: str, source: str) -> list[Document]:
    """The documents in a text; a List of the Kubernetes API counts as its items."""
    try:
        contents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise Invalid(f"{source}: is not YAML: {_where(error)}") from error
    return [Document(source, item) for content in contents for item in _items(content, source)]


def _items(content: Any, source: str) -> Iterator[dict[str, Any]]:
    if content is None:
        return
    if not isinstance(content, dict):
        raise Invalid(
            f"{source}: each document must be an object with apiVersion, kind and metadata; "
            f"one is a {type(content).__name__}"
        )
    if content.get("kind") == "List" and isinstance(content.get("items"), list):
        for item in content["items"]:
            yield from _items(item, source)
    else:
        yield content


def _where(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return str(error)


def _with_key(document: Document, directory: Path) -> Document:
    """A GatewayClassConfig may name a file for its service-key, so that manifests hold no secret."""
    epic = _parameters(document.content)
    name = epic.get("service-key-file") if epic is not None else None
    if epic is None or not isinstance(name, str) or "service-key" in epic:
        return document
    try:
        key = (directory / name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        text = error.strerror if isinstance(error, OSError) else "not UTF-8"
        what = describe(document.content)
        raise Invalid(
            f"{document.source}: {what}: spec.epic.service-key-file: {directory / name}: {text}"
        ) from error
    spec = document.content["spec"]
    return document._replace(
        content={**document.content, "spec": {**spec, "epic": {**epic, "service-key": key}}}
    )


def _parameters(content: dict[str, Any]) -> dict[str, Any] | None:
    if not str(content.get("apiVersion", "")).startswith(f"{CONFIG_GROUP}/"):
        return None
    spec = content.get("spec")
    epic = spec.get("epic") if isinstance(spec, dict) else None
    return epic if isinstance(epic, dict) else None
