# SPDX-License-Identifier: Apache-2.0
"""What is said of a client's objects: which one, where it was read, what is wrong with it. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

CONFIG_GROUP = "puregw.epic-gateway.org"
GATEWAY_GROUP = "gateway.networking.k8s.io"


class Ref(NamedTuple):
    """Which object of the client."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Document(NamedTuple):
    """An object as it was read, and where: a file's name, or another source's; its number there from 1."""

    source: str
    content: dict[str, Any]
    number: int = 0


class Problem(NamedTuple):
    """What is wrong with an object, and the Gateway API's word for it; document 0 is the whole source.

    A warning is of something for others than EPIC, which has all of the object that is for it.
    """

    source: str
    object: str
    reason: str
    message: str
    document: int = 0
    is_warning: bool = False

    def __str__(self) -> str:
        where = f"{self.source}: document {self.document}" if self.document else self.source
        return f"{where}: {self.object}: {self.message} ({self.reason})"


class Unseen(NamedTuple):
    """What cannot be seen at present, and so is not gone: objects, and files of which a part is not known."""

    refs: frozenset[Ref] = frozenset()
    files: frozenset[str] = frozenset()

    def hides(self, ref: Ref) -> bool:
        """Whether there may be an object that was not found."""
        return bool(self.files) or ref in self.refs


NOTHING_UNSEEN = Unseen()
