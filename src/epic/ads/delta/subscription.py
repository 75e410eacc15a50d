# SPDX-License-Identifier: Apache-2.0
"""What a client of a delta-ADS stream wants and has of one type, and what of it is to be sent.

Each name is looked at when something of it may have changed, and all of them only when the resources are
others than those of the last look: at the beginning, and after a publication that does not say what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from epic.ads.snapshot import Resources, Versioned

WILDCARD = "*"
# What a remembered name takes besides its letters, about.
NAME_BYTES = 200


@dataclass(frozen=True)
class Sent:
    """What is in a response: versions by name, and the names of what is gone."""

    updated: Mapping[str, str]
    removed: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return NAME_BYTES * (1 + len(self.updated) + len(self.removed))


@dataclass
class Subscription:
    """The state of one type of a stream. `due` and `surplus` are of the last look."""

    wildcard: bool
    held: dict[str, str]
    """Versions that the client has accepted."""
    sent: dict[str, str]
    """Versions that it has if it accepts all that is under way."""
    names: set[str] = field(default_factory=set)
    owed: set[str] = field(default_factory=set)
    """Names that must be answered even if nothing changed or no such resource exists."""
    refused: dict[str, str] = field(default_factory=dict)
    """Versions that the client refused; sent again only when they change."""
    kept: set[str] = field(default_factory=set)
    """Names that the client would not let go of; removed again later."""
    alone: set[str] = field(default_factory=set)
    """Names from a refused response of several; sent one by one to find the culprit."""
    greeted: bool = False
    outstanding: dict[str, Sent] = field(default_factory=dict)
    unanswered: int = 0
    """Bytes that what is in `outstanding` takes."""
    named: int = 0
    """Bytes that the names in `names`, and those that the client began with, take."""
    due: set[str] = field(default_factory=set)
    """Names to send: changed ones, and owed ones, be they there or not."""
    surplus: set[str] = field(default_factory=set)
    """Names that the client has and should not have."""
    leaving: set[str] = field(default_factory=set)
    """Those of `surplus` that are removed in this round, and were not touched since it began."""
    stays: Callable[[str], bool] = lambda _: False
    """Whether the client keeps a resource though it is not there: nobody knows what it is to be."""
    _unseen: set[str] = field(default_factory=set)
    """Names to look at, for something has changed."""
    _rest: list[str] = field(default_factory=list)
    """Names to look at, for all are: some twice. To put 100,000 into a set takes too long at a time."""
    _seen: Resources | None = None

    @property
    def looks_on(self) -> bool:
        """Whether there are names that were not looked at yet."""
        return bool(self._unseen or self._rest)

    def look(self, resources: Resources, most: int | None = None) -> None:
        """Find what is due and what is surplus, looking at `most` names at most."""
        if resources is not self._seen:
            self._seen = resources
            self.due, self.surplus = set(), set()
            self._unseen.clear()
            self._rest = [*self.sent, *self.names, *(resources if self.wildcard else ())]
        left = len(self._unseen) + len(self._rest)
        for _ in range(left if most is None else min(left, most)):
            name = self._unseen.pop() if self._unseen else self._rest.pop()
            resource = resources.get(name)
            if self._is_due(name, resource):
                self.due.add(name)
            elif resource is None and name in self.sent and not self.stays(name):
                self.surplus.add(name)
                continue
            self.leaving.discard(name)

    def gone(self) -> list[str]:
        """Names of which the client is to be told that they exist no more, sorted; those of the last look."""
        return sorted(self.surplus - self.kept)

    def touch(self, *groups: Collection[str]) -> None:
        """Look at these names again."""
        for names in groups:
            self._unseen.update(names)
            self.due.difference_update(names)
            self.surplus.difference_update(names)
            self.leaving.difference_update(names)

    def subscribe(self, names: Iterable[str], *, first: bool) -> None:
        """The client wants these too; `first`: its request is the first for the type."""
        for name in names:
            if name == WILDCARD:
                self.wildcard, self._seen = True, None
                continue
            if name not in self.names:
                self.named += NAME_BYTES + len(name)
            self.names.add(name)
            self.refused.pop(name, None)
            # A new stream states the versions that the client has; later it may have forgotten one.
            if not first or name not in self.held:
                self.owed.add(name)
            self.touch((name,))

    def unsubscribe(self, names: Iterable[str]) -> None:
        """The client does not want these any more."""
        for name in names:
            if name == WILDCARD:
                self.wildcard, self._seen = False, None
            if name in self.names:
                self.named -= NAME_BYTES + len(name)
            self.names.discard(name)
            self.owed.discard(name)
            if self.wildcard and name in self.sent:
                self.owed.add(name)
            self.touch((name,))
        if not self.wildcard:
            for versions in (self.held, self.sent):
                unwanted = versions.keys() - self.names
                for name in unwanted:
                    del versions[name]
                self.touch(unwanted)

    def owe(self, names: Iterable[str]) -> None:
        """Answer for these, changed or not."""
        owed = set(names)
        self.owed |= owed
        self.touch(owed)

    def note(self, nonce: str, sent: Sent, resources: Resources) -> None:
        """A response of these resources is sent."""
        self.outstanding[nonce] = sent
        self.unanswered += sent.size
        self.greeted = True
        self.sent.update(sent.updated)
        self.owed.difference_update(sent.updated, sent.removed)
        self.leaving.difference_update(sent.updated, sent.removed)
        for name in sent.removed:
            self.sent.pop(name, None)
        if resources is self._seen:
            self.due.difference_update(sent.updated, sent.removed)
            self.surplus.difference_update(sent.removed)
        else:
            self.touch(sent.updated, sent.removed)

    def answered(self, nonce: str) -> Sent | None:
        """What was in the response that has this answer; None: there is none that waits for it."""
        sent = self.outstanding.pop(nonce, None)
        if sent is not None:
            self.unanswered -= sent.size
        return sent

    def accept(self, sent: Sent) -> None:
        """The client has taken a response."""
        self.held.update({n: v for n, v in sent.updated.items() if self.wildcard or n in self.names})
        for name in sent.removed:
            self.held.pop(name, None)
        self.alone.difference_update(sent.updated, sent.removed)

    def refuse(self, sent: Sent) -> None:
        """The client has refused a response, and keeps what it had."""
        for name, version in sent.updated.items():
            if self.sent.get(name) == version:
                del self.sent[name]
                if name in self.held:
                    self.sent[name] = self.held[name]
        for name in sent.removed:
            if name in self.held:
                self.sent.setdefault(name, self.held[name])
        if len(sent.updated) + len(sent.removed) > 1:
            self.alone.update(sent.updated, sent.removed)
            self.owed.update(self.names.intersection(sent.removed) - self.held.keys())
        else:
            self.refused.update(sent.updated)
            self.kept.update(sent.removed)
            self.alone.difference_update(sent.updated, sent.removed)
        self.touch(sent.updated, sent.removed)

    def _is_due(self, name: str, resource: Versioned | None) -> bool:
        if name not in self.names and not (self.wildcard and resource is not None):
            return False
        if name in self.owed or resource is None:
            return name in self.owed
        return resource.version not in (self.sent.get(name), self.refused.get(name))
