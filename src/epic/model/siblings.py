# SPDX-License-Identifier: Apache-2.0
"""The siblings of a gateway: its instances that live, as each of their nodes is to know them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field

from epic.model.base import Kebab, Resource
from epic.model.values.addresses import AnyAddress
from epic.model.values.keys import EpochKey

MOST_SIBLINGS = 16

Index = Annotated[int, Field(ge=0, lt=MOST_SIBLINGS)]


class Sibling(Kebab):
    """An instance in the list; `joined` is the generation of the first list with it.

    `left`: that of the first list in which it leaves; 0: it stays. Nothing more is passed on to one that
    leaves, but it still takes what comes of those who do not know that yet. `since` is the time of the
    later one of the two.
    """

    node: str
    index: Index
    address: AnyAddress
    draining: bool = False
    joined: int
    left: int = 0
    since: datetime


class FormerSibling(Kebab):
    """One that has left: `left` is the generation of the first list without it.

    Its index is nobody's while somebody may have a list with it; `epoch` is the newest key that its node
    may know. One that is `dismissed` was on a node that was removed as planned, and has said that nothing is
    left there: its keys go with the next rotation.
    """

    node: str
    index: Index
    left: int
    epoch: int
    dismissed: bool = False


class SiblingsVersion(Kebab):
    """The version under which nodes got the list of a generation."""

    generation: int
    version: str


class SiblingsSpec(Kebab):
    """The list in the order in which they joined, and the keys of what they pass on to each other.

    `generation` counts the changes of what nodes are sent, `changed` is the time of the last one; `versions`
    are those that nodes may have, the newest last.
    """

    public_address: AnyAddress
    alt_address: AnyAddress | None = None
    siblings: tuple[Sibling, ...] = ()
    former: tuple[FormerSibling, ...] = ()
    keys: tuple[EpochKey, ...]
    signing_epoch: int
    signing_since: datetime
    generation: int = 1
    changed: datetime
    versions: tuple[SiblingsVersion, ...] = ()

    @property
    def newest_epoch(self) -> int:
        """The epoch of the newest key."""
        return max(key.epoch for key in self.keys)

    @property
    def version(self) -> str:
        """The version of the newest list."""
        return self.versions[-1].version if self.versions else ""

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that are to have the list."""
        return tuple(sibling.node for sibling in self.siblings)

    @property
    def staying(self) -> tuple[str, ...]:
        """Those of them that do not leave: packets are passed on to them."""
        return tuple(sibling.node for sibling in self.siblings if not sibling.left)

    @property
    def leaving(self) -> tuple[Sibling, ...]:
        """The others."""
        return tuple(sibling for sibling in self.siblings if sibling.left)


class Siblings(Resource):
    """The siblings of the gateway of that account and name. It holds keys: never shown but to their nodes."""

    kind: ClassVar[str] = "Siblings"
    spec: SiblingsSpec
