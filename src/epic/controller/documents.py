# SPDX-License-Identifier: Apache-2.0
"""Read documents from files of YAML or JSON, each document by itself: a wrong one spoils no other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from epic.controller.objects import CONFIG_GROUP, Document, describe
from epic.errors import Invalid

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_SIZE_MAX = 4 << 20
# Aliases make a small text large.
_VALUES_MAX = 1_000_000
# No text of a document can begin a line so, not even in a block or in quotes.
_START = re.compile(r"^---(?=\s|\Z)", re.MULTILINE)
_NO_CONTENT = re.compile(r"(?:---)?\s*(?:#[^\n]*\s*)*")
_DIRECTIVES = re.compile(r"(?:\s*(?:#[^\n]*|%[^\n]*)(?:\n|\Z))*\s*%[^\n]*\s*")


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: what looks like a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


class Piece(NamedTuple):
    """The text of one document; `number` counts from 1, `line` those before it."""

    number: int
    line: int
    text: str


def manifest_files(directory: Path) -> list[Path]:
    """The manifests in a directory, sorted; editors' and hidden files are none. One that leads nowhere is."""
    try:
        entries = sorted(directory.iterdir())
        return [e for e in entries if is_manifest(e) and (e.is_symlink() or e.is_file()) and not e.is_dir()]
    except OSError as error:
        raise Invalid(f"{directory}: cannot be read: {error.strerror}") from error


def is_manifest(path: Path) -> bool:
    """Whether a file of that name is read."""
    return path.suffix in SUFFIXES and not path.name.startswith(".")


def read_pieces(path: Path) -> list[Piece]:
    """The documents' texts; raises Invalid when the file cannot be read."""
    try:
        if path.stat().st_size > _SIZE_MAX:
            raise Invalid(f"{path}: larger than {_SIZE_MAX >> 20} MiB; split it")
        return split(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}") from error


def read_file(path: Path) -> list[Document]:
    """The documents of a file; raises Invalid when one cannot be read."""
    found = [document for piece in read_pieces(path) for document in read_piece(piece, str(path))]
    return [with_key(document, path.parent) for document in found]


def read_text(text: str, source: str) -> list[Document]:
    """The documents in a text; a List of the Kubernetes API counts as its items."""
    return [document for piece in split(text) for document in read_piece(piece, source)]


def split(text: str) -> list[Piece]:
    """The documents' texts, without those that say nothing."""
    starts = [0, *(match.start() for match in _START.finditer(text)), len(text)]
    found: list[Piece] = []
    before, line = "", 0
    for begin, end in pairwise(starts):
        part = before + text[begin:end]
        if _DIRECTIVES.fullmatch(part):
            # They belong to the document that follows.
            before = part
            continue
        if not _NO_CONTENT.fullmatch(part):
            found.append(Piece(len(found) + 1, line, part))
        line += part.count("\n")
        before = ""
    return found


def read_piece(piece: Piece, source: str) -> list[Document]:
    """The objects of one document; raises Invalid, which names the document."""
    where = f"{source}: document {piece.number}"
    try:
        contents = list(yaml.load_all(piece.text, Loader=_Loader))
        if "*" in piece.text:
            _check_size(contents)
        json.dumps(contents, allow_nan=False)
        return [
            Document(source, item, piece.number) for content in contents for item in _items(content, where)
        ]
    except yaml.YAMLError as error:
        raise Invalid(f"{where}: is not YAML: {_position(error, piece.line)}") from error
    except RecursionError as error:
        raise Invalid(f"{where}: is nested too deeply") from error
    except (ValueError, TypeError) as error:
        raise Invalid(f"{where}: holds what JSON has no word for: {error}") from error


def _check_size(contents: Any) -> None:
    sizes: dict[int, int] = {}

    def size(value: Any) -> int:
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in sizes:
            inner = value.values() if isinstance(value, dict) else value
            sizes[id(value)] = 1 + sum(map(size, inner))
        return sizes[id(value)]

    if size(contents) > _VALUES_MAX:
        raise ValueError(f"more than {_VALUES_MAX} values, by its aliases")


def _items(content: Any, where: str) -> Iterator[dict[str, Any]]:
    if content is None:
        return
    if not isinstance(content, dict):
        raise Invalid(
            f"{where}: each document must be an object with apiVersion, kind and metadata; "
            f"one is a {type(content).__name__}"
        )
    if content.get("kind") == "List" and isinstance(content.get("items"), list):
        for item in content["items"]:
            yield from _items(item, where)
    else:
        yield content


def _position(error: yaml.YAMLError, line: int) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {line + mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return str(error)


def key_file(content: dict[str, Any], directory: Path) -> Path | None:
    """The file that a GatewayClassConfig names for its service-key, so that manifests hold no secret."""
    epic = _parameters(content)
    name = epic.get("service-key-file") if epic is not None else None
    return directory / name if epic and isinstance(name, str) and "service-key" not in epic else None


def with_key(document: Document, directory: Path) -> Document:
    """The document with the key from its file; raises Invalid if that cannot be read."""
    path, epic = key_file(document.content, directory), _parameters(document.content)
    if path is None or epic is None:
        return document
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        text = error.strerror if isinstance(error, OSError) else "not UTF-8"
        what = describe(document.content)
        raise Invalid(f"{document.source}: {what}: spec.epic.service-key-file: {path}: {text}") from error
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
