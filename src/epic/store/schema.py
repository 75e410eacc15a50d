# SPDX-License-Identifier: Apache-2.0
"""How objects lie in the store: an envelope with checksum, form and labels; conversions of older forms."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from epic.errors import Damaged, Invalid, WrittenByNewer
from epic.store.objects import LEASE_KIND

# An object's JSON in one form to the same in the next.
Conversion = Callable[[dict[str, Any]], dict[str, Any]]

_CHECKSUM_BYTES = 8
_NO_LABELS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class StoredKind:
    """How a kind is stored: the form that is written now, and how each older one becomes the next."""

    kind: str
    form: int = 1
    # From form n to n + 1, by n. Forms without a conversion are not read any more.
    conversions: Mapping[int, Conversion] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Envelope:
    """An object out of its bytes, in the kind's newest form; `form` is the one it was stored in."""

    form: int
    labels: Mapping[str, str]
    body: bytes


class Schema:
    """The kinds that can be stored."""

    def __init__(self, kinds: Iterable[StoredKind]) -> None:
        self._kinds = {kind.kind: kind for kind in (StoredKind(LEASE_KIND), *kinds)}

    def encode(self, kind: str, labels: Mapping[str, str], body: bytes) -> bytes:
        """The bytes to store, in the kind's newest form; raises Invalid for a kind that is not known."""
        stored_kind = self._kinds.get(kind)
        if stored_kind is None:
            raise Invalid(f"kind {kind!r} is not stored; expected one of {', '.join(sorted(self._kinds))}")
        content = _write_header(stored_kind.form, tuple(labels.items())) + b"\n" + body
        return b"%08x %b" % (zlib.crc32(content), content)

    def decode(self, kind: str, value: bytes) -> Envelope:
        """The object in stored bytes; raises Damaged with the reason when they cannot be read."""
        form, labels, body = _open(value)
        stored_kind = self._kinds.get(kind)
        if stored_kind is None:
            raise WrittenByNewer(f"kind {kind} is not known to this version of EPIC")
        if form > stored_kind.form:
            raise WrittenByNewer(
                f"it was written by a newer EPIC (in form {form}; this one reads up to {stored_kind.form})"
            )
        if form < stored_kind.form:
            body = _convert(stored_kind, form, body)
        return Envelope(form, labels, body)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._kinds)

    def is_newest(self, kind: str, form: int) -> bool:
        """Whether this form of the kind is the one that is written now."""
        return self._kinds[kind].form == form


def _open(value: bytes) -> tuple[int, Mapping[str, str], bytes]:
    content = value[_CHECKSUM_BYTES + 1 :]
    if value[: _CHECKSUM_BYTES + 1] != b"%08x " % zlib.crc32(content):
        raise Damaged("its checksum does not fit its content")
    header, _, body = content.partition(b"\n")
    return (*_read_header(header), body)


# Most objects have the same header as many others.
@lru_cache(maxsize=4096)
def _read_header(header: bytes) -> tuple[int, Mapping[str, str]]:
    try:
        match json.loads(header):
            case {"form": int(form), "labels": dict(labels)}:
                return form, MappingProxyType(labels)
            case {"form": int(form)}:
                return form, _NO_LABELS
    except ValueError:
        pass
    raise Damaged(f"its header is not one: {header[:80]!r}")


@lru_cache(maxsize=4096)
def _write_header(form: int, labels: tuple[tuple[str, str], ...]) -> bytes:
    header = {"form": form, "labels": dict(labels)} if labels else {"form": form}
    return json.dumps(header, separators=(",", ":")).encode()


def _convert(stored_kind: StoredKind, form: int, body: bytes) -> bytes:
    if form not in stored_kind.conversions:
        raise Damaged(f"its form {form} is too old: this version of EPIC does not convert it")
    try:
        content = json.loads(body)
        for step in range(form, stored_kind.form):
            content = stored_kind.conversions[step](content)
        return json.dumps(content, separators=(",", ":")).encode()
    # Whatever a conversion stumbles over is wrong with this object alone.
    except Exception as error:
        raise Damaged(
            f"form {form} cannot be converted to {stored_kind.form}: {type(error).__name__}: {error}"
        ) from error
