# SPDX-License-Identifier: Apache-2.0
"""What the store is to do, as plainly as it can be said: every state that there ever was is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from epic.model.values.labels import LabelSelector
from epic.store.objects import Delete, Key, Mismatch, Operation, Put


@dataclass(frozen=True)
class Value:
    """An object; one in a newer form cannot be read."""

    revision: int
    body: bytes
    labels: Mapping[str, str]
    is_readable: bool = True


State = dict[Key, Value]


@dataclass
class StoreModel:
    """States by revision, from the one that the store was found at."""

    states: dict[int, State]
    events: list[tuple[int, Key, Value | None]] = field(default_factory=list)
    compacted: int = 0

    @property
    def revision(self) -> int:
        """The newest."""
        return max(self.states)

    @property
    def state(self) -> State:
        """The newest."""
        return self.states[self.revision]

    def mismatches(self, operations: Sequence[Operation]) -> set[Mismatch]:
        """What refuses this commit."""
        actual = {op.key: self.state[op.key].revision if op.key in self.state else 0 for op in operations}
        return {
            Mismatch(op.key, op.expected, actual[op.key])
            for op in operations
            if op.expected != actual[op.key]
        }

    def writes(self, operations: Sequence[Operation]) -> bool:
        """Whether this commit changes something."""
        return any(isinstance(op, Put) or (isinstance(op, Delete) and op.expected) for op in operations)

    def commit(self, operations: Sequence[Operation], revision: int, *, is_readable: bool) -> None:
        """The store did it, at this revision."""
        assert revision > self.revision
        state = dict(self.state)
        for op in operations:
            if isinstance(op, Put):
                state[op.key] = Value(revision, op.body, dict(op.labels), is_readable)
                self.events.append((revision, op.key, state[op.key]))
            elif isinstance(op, Delete) and state.pop(op.key, None):
                self.events.append((revision, op.key, None))
        self.states[revision] = state

    def list(
        self, revision: int, kind: str, account: str | None, selector: LabelSelector, after: Key | None
    ) -> list[tuple[Key, Value]]:
        """What is selected and readable after a key, in order."""
        state = self.states[max(known for known in self.states if known <= revision)]
        return [
            (key, value)
            for key, value in sorted(state.items(), key=lambda item: item[0].path)
            if key.kind == kind
            and account in (None, key.account)
            and selector.matches(value.labels)
            and value.is_readable
            and (after is None or key.path > after.path)
        ]

    def changes(
        self, since: int, kind: str | None, account: str | None
    ) -> list[tuple[int, Key, Value | None]]:
        """The events of a watch."""
        return [
            event
            for event in self.events
            if event[0] > since and kind in (None, event[1].kind) and account in (None, event[1].account)
        ]
