# SPDX-License-Identifier: Apache-2.0
"""Statuses come back as files, one an object: who wrote a manifest sees there what became of it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from epic.controller.desired import Desired, Item
from epic.controller.mirror.observed import Observed, Seen
from epic.controller.mirror.passes import Outcome
from epic.controller.objects import ClientObject, Gateway, Objects, Problem, Ref

log = logging.getLogger(__name__)

CONDITION = "Mirrored"
_NAME_MAX = 200


class StatusDirectory:
    """Writes what has changed, removes what is about nothing any more; where it cannot, the log says so."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: dict[str, str] = {}
        self._said: dict[str, list[dict[str, str]]] = {}
        self._gateways: dict[Ref, Seen | None] = {}
        self._pruned = False
        self._failed = ""

    def update(
        self,
        objects: Objects,
        changed: Iterable[Ref],
        desired: Desired,
        outcomes: Iterable[Outcome],
        observed: Observed,
    ) -> None:
        """Bring the files up to date; `changed` objects are others than last time."""
        said = _said(desired.problems, outcomes)
        # What is in which file is not known after a failure.
        news = changed if not self._failed else [obj.ref for obj in objects.everything()]
        dirty = {str(ref): ref for ref in news}
        dirty |= {str(item.ref): item.ref for item in desired.proxies if self._is_news(item, observed)}
        names = dirty.keys() | {
            n for n in said.keys() | self._said.keys() if said.get(n) != self._said.get(n)
        }
        self._said = said
        try:
            self._path.mkdir(mode=0o755, parents=True, exist_ok=True)
            for name in names:
                ref = dirty.get(name) or _ref(name)
                self._put(name, objects.get(ref) if ref else None)
            self._prune()
        except OSError as error:
            text = f"{self._path}: statuses cannot be written: {error.strerror}"
            if text != self._failed:
                log.warning("%s", text)
            self._failed = text
            self._written.clear()
            self._said.clear()
        else:
            self._failed = ""

    def tell_held(self, text: str) -> None:
        """Say in a file of its own why removals wait; without text, that they do not."""
        try:
            self._write("removals-held.json", {"message": text} if text else None)
        except OSError as error:
            log.warning("%s: cannot be written: %s", self._path, error.strerror)

    def _is_news(self, item: Item, observed: Observed) -> bool:
        seen = observed.find(item.address)
        news = self._gateways.get(item.ref) is not seen
        self._gateways[item.ref] = seen
        return news

    def _put(self, name: str, obj: ClientObject | None) -> None:
        said = self._said.get(name, [])
        if obj is None and not said:
            self._gateways.pop(_ref(name) or Ref("", "", ""), None)
            self._write(file_name(name), None)
            return
        good = {"type": CONDITION, "status": "True", "reason": CONDITION, "message": ""}
        status: dict[str, Any] = {"conditions": said or [good]}
        if isinstance(obj, Gateway) and (seen := self._gateways.get(obj.ref)) is not None:
            status["epic"] = seen.answer
        where = {"source": obj.source, "document": obj.document} if obj is not None else {}
        self._write(file_name(name), {"object": name, **where, "status": status})

    def _write(self, name: str, content: dict[str, Any] | None) -> None:
        path = self._path / name
        if content is None:
            self._written.pop(name, None)
            path.unlink(missing_ok=True)
            return
        text = json.dumps(content, indent=1) + "\n"
        digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        if self._written.get(name) == digest:
            return
        if name not in self._written and path.is_file() and path.read_text(encoding="utf-8") == text:
            self._written[name] = digest
            return
        new = path.with_name(f".{name}.new")
        new.write_text(text, encoding="utf-8")
        new.rename(path)
        self._written[name] = digest

    def _prune(self) -> None:
        """Once, remove what an earlier process left about objects that are not there any more."""
        if not self._pruned:
            for path in self._path.glob("*.json"):
                if path.name not in self._written:
                    path.unlink(missing_ok=True)
            self._pruned = True


def file_name(name: str) -> str:
    """The file about an object, given as `Kind NAMESPACE/NAME`: Kind.NAMESPACE.NAME.json."""
    kind, _, rest = name.partition(" ")
    namespace, slash, own = rest.partition("/")
    parts = [kind, namespace.replace(".", "%2E"), own] if slash else [kind, namespace]
    text = ".".join(quote(part, safe="%") for part in parts)
    if len(text) > _NAME_MAX:
        text = f"{text[:_NAME_MAX]}.{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
    return f"{text}.json"


def _said(problems: Iterable[Problem], outcomes: Iterable[Outcome]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for problem in problems:
        name = problem.object
        if _ref(name) is None:
            # Nobody knows which object that is about.
            name = f"{name} {quote(problem.source, safe='')}/{problem.document}"
        where = (
            f"{problem.source}: document {problem.document}: " if problem.document else f"{problem.source}: "
        )
        status = "True" if problem.is_warning else "False"
        found[name].append(_condition(problem.reason, where + problem.message, status))
    for outcome in outcomes:
        if outcome.action in {"failed", "left", "warned"}:
            found[outcome.object].append(_condition(outcome.reason, outcome.message))
    return dict(found)


def _condition(reason: str, message: str, status: str = "False") -> dict[str, str]:
    return {"type": CONDITION, "status": status, "reason": reason, "message": message}


def _ref(name: str) -> Ref | None:
    kind, space, rest = name.partition(" ")
    namespace, slash, own = rest.partition("/")
    if not space or not kind[:1].isupper():
        return None
    return Ref(kind, namespace, own) if slash else Ref(kind, "", namespace)
