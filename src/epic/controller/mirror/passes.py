# SPDX-License-Identifier: Apache-2.0
"""A pass: write what is not as desired, remove what is desired no more; the rest costs no request."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from epic.controller.apply import Action
from epic.controller.core import IGNORED
from epic.controller.desired import Address, Collection, Desired, EpicConnection, Item
from epic.controller.mirror.moves import Moves
from epic.controller.mirror.observed import COLLECTIONS, ClientOf, Observed
from epic.controller.mirror.writes import Writer
from epic.controller.objects import NOTHING_UNSEEN, Unseen
from epic.controller.state import Owned, Place, State, StateFile
from epic.errors import EpicError, Unavailable

_REMOVAL_ORDER: dict[Collection, int] = {"routes": 0, "slices": 1, "members": 2, "proxies": 3}
# So many requests of a pass that a server leaves without an answer, and the rest of it waits.
_STRIKES = 3
_NAMED = 3
_OF_GATEWAYS = ("proxies", "members")
_CONFLICTED = "Conflicted"


@dataclass(frozen=True)
class MirrorSettings:
    """`source` is who asks for objects, among those of its cluster.

    `hold_from`: of so many objects or more that were made, a removal of more than half waits; 0 never waits.
    Everything is listed anew each `list_seconds`; gateways, for their statuses, each `gateway_list_seconds`.
    """

    source: str = ""
    hold_from: int = 10
    list_seconds: float = 600.0
    gateway_list_seconds: float = 30.0


@dataclass(frozen=True)
class Outcome:
    """What was done with an object that was not as desired, or why it failed."""

    object: str
    address: Address
    action: Action
    message: str = ""
    reason: str = ""


class Mirror:
    """Makes EPIC follow one source of objects, and remembers what it made, so as to delete it in time."""

    def __init__(
        self,
        state_file: StateFile,
        client_of: ClientOf,
        settings: MirrorSettings = MirrorSettings(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.observed = Observed(client_of)
        self.held = ""
        """Why removals wait for a confirmation; empty when they do not."""
        self._file = state_file
        self._writer = Writer(self.observed, client_of, settings.source)
        self._settings = settings
        self._clock = clock
        self._read: State | None = None
        self._due: dict[tuple[str, str, Collection], float] = {}
        # By identity: a translation that has nothing new to say of an object gives the same item.
        self._last: dict[int, Item] = {}
        self._unsettled: set[int] = set()
        self._loose: set[Address] = set()
        self._listed: set[tuple[str, str, Collection]] = set()
        self._strikes: Counter[str] = Counter()

    @property
    def state(self) -> State:
        """What was made."""
        if self._read is None:
            self._read = self._file.read()
        return self._read

    def expire(self) -> None:
        """List everything at the next pass."""
        self._due.clear()

    def reconcile(
        self,
        desired: Desired,
        unseen: Unseen = NOTHING_UNSEEN,
        place: Place | None = None,
        *,
        confirmed: bool = False,
    ) -> list[Outcome]:
        """Write what differs, then delete what was made earlier, is desired no more, and could be seen.

        `place` is where objects are read; a removal waits if it is another than before, unless `confirmed`.
        """
        self._strikes.clear()
        unlisted, outcomes = self._list(desired)
        todo = self._take(desired)
        # What may be made is noted before it is made: after a crash it is still known.
        self._remember(self.state.with_items(todo, desired.connections))
        moves = Moves(self.observed, self.state.owned, desired.proxies)
        outcomes += [out for item in todo if (out := self._write(item, moves, unlisted)) is not None]
        kept = partial(_is_kept, desired, unseen, moves)
        outcomes += self._prune(kept, place, confirmed, unlisted)
        return [*outcomes, *self._warned(desired)]

    def _warned(self, desired: Desired) -> Iterator[Outcome]:
        """What the server said of objects that it took, where the client has not said so itself."""
        refused = self.observed.refused
        for item in desired.routes if refused else ():
            for reason, message in refused.get(item.address, ()):
                yield Outcome(str(item.ref), item.address, "warned", message, reason)
        told = {problem.object for problem in desired.problems if problem.reason == IGNORED}
        warnings = self._writer.warnings
        for item in desired.items if warnings else ():
            if item.address in warnings and str(item.ref) not in told:
                yield Outcome(str(item.ref), item.address, "warned", warnings[item.address], IGNORED)
        for item in desired.proxies:
            seen = self.observed.find(item.address) if item.collection == "members" else None
            for condition in seen.answer["status"]["conditions"] if seen is not None else ():
                if (condition["type"], condition["status"]) == (_CONFLICTED, "True"):
                    yield Outcome(
                        str(item.ref), item.address, "warned", condition["message"], condition["reason"]
                    )

    def _take(self, desired: Desired) -> list[Item]:
        """What is to be looked at: new wishes, and those that are not known to be carried out."""
        current = {id(item): item for item in desired.items}
        new = current.keys() - self._last.keys()
        ended = {self._last[key].address for key in self._last.keys() - current.keys()}
        todo = new | (self._unsettled & current.keys())
        self._unsettled = todo
        first = not self._last
        self._last = current
        items = [current[key] for key in current if key in todo]
        if first or ended - {item.address for item in items}:
            self._loose = self.state.owned.keys() - {item.address for item in desired.items}
        else:
            self._loose -= {item.address for item in items}
        return items

    def _list(self, desired: Desired) -> tuple[dict[tuple[str, str], str], list[Outcome]]:
        """List what is due; returns the accounts of which nothing is known, and what failed."""
        unlisted: dict[tuple[str, str], str] = {}
        outcomes: list[Outcome] = []
        accounts = {(c.server, c.account): c for c in self.state.logins.values()}
        accounts |= {(c.server, c.account): c for c in desired.connections}
        for account, connection in accounts.items():
            for collection in COLLECTIONS:
                if self._clock() < self._due.get((*account, collection), float("-inf")):
                    continue
                if collection == "members" and not self._shares(account, desired):
                    self._set_due(account, collection)
                    continue
                try:
                    self._unsettle(self.observed.list(connection, collection))
                except EpicError as error:
                    if (*account, collection) not in self._listed:
                        unlisted[account] = str(error)
                        break
                    # What is known of it is as good as before; it is asked again by and by.
                    where = Address(*account, collection, "")
                    what = f"account {connection.account}"
                    outcomes.append(Outcome(what, where, "failed", str(error), error.reason))
                self._listed.add((*account, collection))
                self._set_due(account, collection)
        self._unsettle(self.observed.doubt_verdicts(item.address for item in desired.routes))
        return unlisted, outcomes

    def _shares(self, account: tuple[str, str], desired: Desired) -> bool:
        """Whether a Gateway of the account shares one, or did: else nobody need ask for its members."""
        addresses = (*(item.address for item in desired.proxies), *self.state.owned)
        return any(a.collection == "members" and (a.server, a.account) == account for a in addresses)

    def _set_due(self, account: tuple[str, str], collection: Collection) -> None:
        settings = self._settings
        period = settings.gateway_list_seconds if collection in _OF_GATEWAYS else settings.list_seconds
        # Hosts that began together do not ask together for ever.
        self._due[*account, collection] = self._clock() + period * random.uniform(0.8, 1.2)  # noqa: S311

    def _unsettle(self, addresses: set[Address]) -> None:
        if addresses:
            self._unsettled |= {key for key, item in self._last.items() if item.address in addresses}

    def _write(self, item: Item, moves: Moves, unlisted: dict[tuple[str, str], str]) -> Outcome | None:
        written = item

        def act() -> Action:
            nonlocal written
            written = moves.around(item)
            return self._writer.write(written)

        outcome = self._attempt(str(item.ref), item.address, unlisted, act)
        if outcome.action == "failed":
            moves.note_failed(item, outcome.reason)
            return outcome
        if written is item:
            self._unsettled.discard(id(item))
        if outcome.action != "unchanged" and item.collection == "members":
            # The reply does not say what the gateway is now that it shares.
            self._due.pop((item.address.server, item.address.account, "proxies"), None)
        return outcome if outcome.action != "unchanged" else None

    def _prune(
        self,
        is_kept: Callable[[Owned], bool],
        place: Place | None,
        confirmed: bool,
        unlisted: dict[tuple[str, str], str],
    ) -> list[Outcome]:
        owned_loose = (self.state.owned[address] for address in sorted(self._loose))
        gone = [owned for owned in owned_loose if not is_kept(owned)]
        self.held = "" if confirmed else self._reason_to_hold(gone, place)
        if self.held:
            return []
        outcomes = []
        for owned in sorted(gone, key=lambda one: _REMOVAL_ORDER[one.address.collection]):
            login = self.state.login(owned)
            outcomes.append(self._remove(owned, login, unlisted))
        done = [outcome.address for outcome in outcomes if outcome.action != "failed"]
        self._loose -= set(done)
        state = self.state.without(done) if done else self.state
        if place is not None and state.place != place:
            state = State(state.owned, state.logins, place)
        self._remember(state)
        return outcomes

    def _remove(self, owned: Owned, login: EpicConnection, unlisted: dict[tuple[str, str], str]) -> Outcome:
        return self._attempt(
            str(owned.ref), owned.address, unlisted, lambda: self._writer.remove(owned, login)
        )

    def _reason_to_hold(self, gone: list[Owned], place: Place | None) -> str:
        known, made = self.state.place, len(self.state.owned)
        if not gone or not self._settings.hold_from:
            return ""
        names = ", ".join(str(owned.ref) for owned in gone[:_NAMED])
        more = f" and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
        what = f"{len(gone)} of {made} objects are there no more ({names}{more}) and are kept on EPIC"
        if known is not None and place is not None and known != place:
            return f"{what}, for the directory is another one than that which asked for them"
        if made >= self._settings.hold_from and 2 * len(gone) > made:
            return f"{what}, for they are more than half"
        return ""

    def _attempt(
        self,
        what: str,
        address: Address,
        unlisted: dict[tuple[str, str], str],
        act: Callable[[], Action],
    ) -> Outcome:
        server = address.server
        if (why := unlisted.get((server, address.account))) is not None:
            return Outcome(what, address, "failed", why, Unavailable.reason)
        if self._strikes[server] >= _STRIKES:
            return Outcome(what, address, "failed", f"{server} cannot be reached", Unavailable.reason)
        try:
            outcome = Outcome(what, address, act())
        except EpicError as error:
            # The next objects of that server would only wait as long again.
            self._strikes[server] += isinstance(error, Unavailable)
            return Outcome(what, address, "failed", str(error), error.reason)
        self._strikes[server] = 0
        return outcome

    def _remember(self, state: State) -> None:
        if state is not self._read and state != self._read:
            self._file.write(state)
            self._read = state


def _is_kept(desired: Desired, unseen: Unseen, moves: Moves, owned: Owned) -> bool:
    """Whether it stays though it is not desired: it may be, or what is to be in its place is not there."""
    in_blind = owned.source in unseen.files or (not owned.source and bool(unseen.files))
    return in_blind or owned.ref in desired.held or owned.ref in unseen.refs or moves.keeps(owned)


def failures(outcomes: Iterable[Outcome], action: Action = "failed") -> list[str]:
    """What failed, in words; many objects with one cause are told in one line."""
    causes: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.action == action:
            causes.setdefault(outcome.message, []).append(outcome.object)
    found = []
    for message, objects in causes.items():
        more = f" and {len(objects) - _NAMED} more" if len(objects) > _NAMED else ""
        found.append(f"{', '.join(objects[:_NAMED])}{more}: {message}")
    return found
