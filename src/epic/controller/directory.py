# SPDX-License-Identifier: Apache-2.0
"""The objects in a directory of manifests. What cannot be read counts as it last was: it is not gone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from epic.controller.documents import Piece, is_manifest, key_file, manifest_files, read_piece, read_pieces
from epic.controller.documents import with_key as with_service_key
from epic.controller.objects import (
    UNREAD,
    ClientObject,
    Objects,
    Problem,
    Ref,
    Unseen,
    parse_document,
    ref_of,
)
from epic.controller.state import Place
from epic.errors import Invalid

Signature = tuple[tuple[int, int, int, int] | None, ...]


@dataclass
class _Parsed:
    """What one document's text gives; `unknown` if it cannot be told which objects it is about."""

    objects: list[ClientObject] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    bad: set[Ref] = field(default_factory=set)
    unknown: bool = False
    keys: set[Path] = field(default_factory=set)


@dataclass
class _File:
    signature: Signature = ()
    parsed: dict[Piece, _Parsed] = field(default_factory=dict)
    objects: dict[Ref, ClientObject] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    unseen: frozenset[Ref] = frozenset()
    blind: bool = False
    keys: frozenset[Path] = frozenset()


class Look(NamedTuple):
    """What a look at the directory found: which objects are others than at the look before, what is wrong."""

    changed: frozenset[Ref]
    problems: tuple[Problem, ...]
    unseen: Unseen
    place: Place


class ManifestDirectory:
    """Follows a directory; a look costs what has changed. Two files with one object do not take turns."""

    def __init__(self, path: Path, known: Mapping[Ref, str] | None = None) -> None:
        """`known`: in which file objects were earlier; that one goes on to count."""
        self.objects = Objects()
        self._path = path
        self._known = known or {}
        self._files: dict[Path, _File] = {}
        self._claims: dict[Ref, set[Path]] = defaultdict(set)
        # Those that something is to be said of, so that nothing looks through all the others.
        self._faulty: set[Path] = set()
        self._contested: set[Ref] = set()

    def read(self, paths: Collection[Path] | None = None) -> Look:
        """Look at those files, or at all; raises Invalid when the directory cannot be seen."""
        place = self._place()
        touched: set[Ref] = set()
        for path in self._all() if paths is None else self._among(paths):
            touched |= self._look_at(path)
        changed = frozenset(ref for ref in touched if self._choose(ref))
        faulty = {path: self._files[path] for path in self._faulty}
        unseen = frozenset(r for f in faulty.values() for r in f.unseen if self.objects.get(r) is None)
        blind = frozenset(str(path) for path, file in faulty.items() if file.blind)
        return Look(changed, tuple(self._problems()), Unseen(unseen, blind), place)

    def _place(self) -> Place:
        try:
            found = self._path.stat()
        except OSError as error:
            raise Invalid(f"{self._path}: cannot be read: {error.strerror}") from error
        return Place(found.st_dev, found.st_ino)

    def _all(self) -> set[Path]:
        return {*manifest_files(self._path), *self._files}

    def _among(self, paths: Collection[Path]) -> set[Path]:
        """The manifests that are to be read when those files have changed."""
        if any(path.parent != self._path for path in paths):
            return self._all()
        keys = {path for path in paths if not is_manifest(path)}
        users = {path for path, file in self._files.items() if keys & file.keys} if keys else set()
        return {path for path in paths if is_manifest(path)} | users

    def _look_at(self, path: Path) -> set[Ref]:
        """Bring what is known of a file up to date; returns the objects that it has or had."""
        before = self._files.get(path, _File())
        if not path.is_symlink() and not path.is_file():
            # Its directory was seen just now, so it is gone.
            self._files.pop(path, None)
            self._faulty.discard(path)
            return self._claim(path, before.objects, {})
        signature = _signature([path, *sorted(before.keys)])
        if before.signature == signature and None not in signature:
            return set()
        file = _read(path, before)
        self._files[path] = file
        (self._faulty.add if file.problems else self._faulty.discard)(path)
        return self._claim(path, before.objects, file.objects)

    def _claim(
        self, path: Path, before: Mapping[Ref, ClientObject], after: Mapping[Ref, ClientObject]
    ) -> set[Ref]:
        for ref in before.keys() - after.keys():
            self._claims[ref].discard(path)
            if not self._claims[ref]:
                del self._claims[ref]
        for ref in after.keys() - before.keys():
            self._claims[ref].add(path)
        return {ref for ref in before.keys() | after.keys() if before.get(ref) is not after.get(ref)}

    def _choose(self, ref: Ref) -> bool:
        """Decide which file's object counts; returns whether it is another than before."""
        now = self.objects.get(ref)
        claims = self._claims.get(ref, set())
        (self._contested.add if len(claims) > 1 else self._contested.discard)(ref)
        if not claims:
            self.objects.remove(ref)
            return now is not None
        first = [Path(now.source)] if now else []
        earlier = [path for path in (*first, Path(self._known.get(ref, ""))) if path in claims]
        chosen = earlier[0] if earlier else min(claims)
        new = self._files[chosen].objects[ref]
        self.objects.put(new)
        return now is None or new.content != now.content or new.source != now.source

    def _problems(self) -> Iterable[Problem]:
        for path in sorted(self._faulty):
            yield from self._files[path].problems
        for ref in sorted(self._contested):
            if (chosen := self.objects.get(ref)) is not None:
                text = f"the same object is also in {chosen.source}, which counts; keep one of them"
                for path in sorted(self._claims[ref] - {Path(chosen.source)}):
                    yield self._files[path].objects[ref].problem("Duplicate", text)


def _signature(paths: Iterable[Path]) -> Signature:
    found: list[tuple[int, int, int, int] | None] = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino))
    return tuple(found)


def _read(path: Path, before: _File) -> _File:
    """The file as it is now; documents that are as they were are not parsed again."""
    signature = _signature([path])
    try:
        pieces = read_pieces(path)
    except Invalid as error:
        problem = Problem(str(path), "file", "Invalid", str(error).removeprefix(f"{path}: "))
        return _File((), before.parsed, before.objects, (problem,), before.unseen, True, before.keys)
    # Keys are in files of their own, which may have changed while the document has not.
    kept = {piece: old for piece in pieces if (old := before.parsed.get(piece)) and not old.keys}
    parsed = {piece: kept.get(piece) or _parse(piece, path) for piece in pieces}
    objects: dict[Ref, ClientObject] = {}
    problems: list[Problem] = []
    for one in parsed.values():
        problems += one.problems
        for obj in one.objects:
            first = objects.setdefault(obj.ref, obj)
            if first is not obj:
                text = f"the same object is also in document {first.document}, which counts; keep one of them"
                problems.append(obj.problem("Duplicate", text))
    bad = {ref for one in parsed.values() for ref in one.bad}
    blind = any(one.unknown for one in parsed.values())
    for ref, obj in before.objects.items():
        if ref not in objects and (blind or ref in bad):
            objects[ref] = obj
    keys = frozenset(key for one in parsed.values() for key in one.keys)
    signature += _signature(sorted(keys))
    return _File(signature, parsed, objects, tuple(problems), frozenset(bad - objects.keys()), blind, keys)


def _parse(piece: Piece, path: Path) -> _Parsed:
    result = _Parsed()
    try:
        documents = read_piece(piece, str(path))
    except Invalid as error:
        text = str(error).removeprefix(f"{path}: document {piece.number}: ")
        result.problems.append(Problem(str(path), "document", "Invalid", text, piece.number))
        result.unknown = True
        return result
    for document in documents:
        key = key_file(document.content, path.parent)
        if key is not None:
            result.keys.add(key)
        try:
            parsed = parse_document(with_service_key(document, path.parent))
        except Invalid as error:
            name = str(ref_of(document.content) or "document")
            text = str(error).removeprefix(f"{path}: ")
            parsed = Problem(str(path), name, "Invalid", text, piece.number)
        if isinstance(parsed, ClientObject):
            result.objects.append(parsed)
            continue
        result.problems.append(parsed)
        if parsed.reason != UNREAD or not isinstance(document.content.get("kind"), str):
            ref = ref_of(document.content)
            result.unknown |= ref is None
            result.bad |= {ref} if ref is not None else set()
    return result
