# SPDX-License-Identifier: Apache-2.0
"""The manifests that a command is given: each document by itself, so that a wrong one spoils no other."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from epic.cli.commands import platform
from epic.controller.documents import Piece, manifest_files, read_piece, read_pieces, split, with_key
from epic.controller.objects import ClientObject, Document, parse
from epic.errors import EpicError, Invalid

STDIN = Path("-")


@dataclass(frozen=True)
class Manifests:
    """EPIC's own objects in the order of their creation, the Gateway API's, and what is wrong with others."""

    own: tuple[platform.PlatformObject, ...]
    objects: tuple[ClientObject, ...]
    problems: tuple[str, ...]


def read_manifests(paths: Iterable[Path], account: str) -> Manifests:
    """The objects in files, in directories' files, in standard input for `-`.

    EPIC's own that name no account are of `account`. Raises OtherAccount, and Invalid where there is nothing.
    """
    places = list(paths)
    problems: list[str] = []
    documents = [document for path in places for document in _read(path, problems)]
    own: list[platform.PlatformObject] = []
    others: list[Document] = []
    for document in documents:
        if document.content.get("apiVersion") != platform.API_VERSION:
            others.append(document)
            continue
        try:
            own.append(platform.parse(document, account))
        except platform.OtherAccount:
            raise
        except Invalid as error:
            problems.append(str(error))
    objects, wrong = parse(others)
    problems += map(str, wrong)
    if not documents and not problems:
        where = ", ".join("standard input" if path == STDIN else str(path) for path in places)
        raise Invalid(f"{where}: there is nothing in it; expected objects such as a Gateway")
    own.sort(key=lambda obj: platform.ORDER.index(obj.kind))
    return Manifests(tuple(own), tuple(objects), tuple(problems))


def _read(path: Path, problems: list[str]) -> Iterator[Document]:
    if path == STDIN:
        yield from _documents(split(sys.stdin.read()), "standard input", Path(), problems)
        return
    for file in _files(path, problems):
        try:
            pieces = read_pieces(file)
        except Invalid as error:
            problems.append(str(error))
        else:
            yield from _documents(pieces, str(file), file.parent, problems)


def _files(path: Path, problems: list[str]) -> list[Path]:
    if not path.is_dir():
        return [path]
    try:
        files = manifest_files(path)
    except Invalid as error:
        problems.append(str(error))
        return []
    if not files:
        problems.append(f"{path}: there are no files *.yaml, *.yml or *.json in this directory")
    return files


def _documents(
    pieces: Iterable[Piece], source: str, directory: Path, problems: list[str]
) -> Iterator[Document]:
    for piece in pieces:
        try:
            found = read_piece(piece, source)
        except EpicError as error:
            problems.append(str(error))
            continue
        for document in found:
            try:
                yield document if source == "standard input" else with_key(document, directory)
            except EpicError as error:
                problems.append(str(error))
