# SPDX-License-Identifier: Apache-2.0
"""`epicctl apply` and `delete`: manifests of both kinds, EPIC's own and the Gateway API's."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from epic.cli.commands import platform
from epic.cli.printing.output import say, warn
from epic.client import EpicClient
from epic.controller.apply import BeingDeleted, is_being_deleted, remove, write_item
from epic.controller.classes import CoreSettings
from epic.controller.core import translate
from epic.controller.desired import Desired, Item
from epic.controller.documents import manifest_files, read_file, read_text
from epic.controller.objects import (
    ClientObject,
    Document,
    Gateway,
    HTTPRoute,
    Objects,
    TCPRoute,
    parse,
)
from epic.controller.state import Owned
from epic.errors import EpicError, Invalid
from epic.kinds.unknown_fields import unknown_fields

STDIN = Path("-")
GONE_SECONDS = 60.0
_LOOK_SECONDS = 0.2


@dataclass
class Report:
    """What is told while it goes: a line per object, and what went wrong."""

    problems: list[str] = field(default_factory=list)

    def done(self, what: object, action: str) -> None:
        """Say what was done with an object."""
        say(f"{what} {action}")

    def warn(self, message: str) -> None:
        """Say what is odd."""
        warn(message)

    def failed(self, message: str) -> None:
        """Say what went wrong; the command fails at its end."""
        self.problems.append(message)
        self.warn(message)


def read_manifests(paths: Iterable[Path]) -> list[Document]:
    """The documents of files, of directories' files, of standard input for `-`; raises Invalid for none."""
    places = list(paths)
    documents = [document for path in places for document in _read(path)]
    if not documents:
        where = ", ".join("standard input" if path == STDIN else str(path) for path in places)
        raise Invalid(f"{where}: there is nothing in it; expected objects such as a Gateway")
    return documents


def _read(path: Path) -> Iterator[Document]:
    if path == STDIN:
        yield from read_text(sys.stdin.read(), "standard input")
    elif path.is_dir():
        files = manifest_files(path)
        if not files:
            raise Invalid(f"{path}: there are no files *.yaml, *.yml or *.json in this directory")
        for file in files:
            yield from read_file(file)
    else:
        yield from read_file(path)


def split(
    documents: Iterable[Document], account: str
) -> tuple[list[platform.PlatformObject], list[Document]]:
    """EPIC's own objects in the order of their creation, and the others."""
    own, others = [], []
    for document in documents:
        if document.content.get("apiVersion") == platform.API_VERSION:
            own.append(platform.parse(document, account))
        else:
            others.append(document)
    return sorted(own, key=lambda obj: platform.ORDER.index(obj.kind)), others


def parse_objects(documents: Iterable[Document]) -> list[ClientObject]:
    """The Gateway API's objects, and those that belong to them; raises Invalid with what is wrong."""
    objects, problems = parse(documents)
    if problems:
        raise Invalid("\n".join(map(str, problems)))
    return objects


def understood(
    objects: Iterable[ClientObject], settings: CoreSettings, report: Report, account: str
) -> Desired:
    """What the Gateway API's objects ask for; what is wrong with them is told.

    Raises Invalid when a configuration among them names another account than the one given.
    """
    desired = translate(Objects(objects), settings)
    for problem in desired.problems:
        report.failed(str(problem))
    named = {item.address.account: item for item in desired.items if item.address.account != account}
    if account and named:
        other, item = min(named.items(), key=lambda pair: pair[0])
        what = _label(item.ref.kind, item.ref.namespace, item.ref.name)
        raise Invalid(
            f"{item.source}: {what} is of account {other!r} by its GatewayClassConfig, "
            f"and --account says {account!r}; leave one of them out"
        )
    return desired


def _warn_of_unknown_fields(objects: Iterable[ClientObject], report: Report) -> None:
    # Of others, such as Services, most is of no concern to EPIC.
    for obj in objects:
        if isinstance(obj, Gateway | HTTPRoute | TCPRoute):
            for unknown in unknown_fields(type(obj.spec), obj.content["spec"], "spec"):
                report.warn(f"{obj.source}: {obj.ref}: {unknown} is not known and ignored")


def apply(
    client: EpicClient,
    documents: Iterable[Document],
    settings: CoreSettings,
    prompt: platform.Prompt,
    account: str = "",
) -> Report:
    """Create or change every object; one that fails does not stop the others."""
    report = Report()
    own, others = split(documents, account)
    objects = parse_objects(others)
    _warn_of_unknown_fields(objects, report)
    items = understood(objects, settings, report, account).items
    if not own and not items and not report.problems:
        report.warn(
            "there is nothing to be written: the manifests hold no Gateway, no route and no Service of one"
        )
    for obj in own:
        try:
            report.done(obj, platform.write(client, obj, prompt, report.warn))
        except EpicError as error:
            report.failed(f"{obj}: {error}")
    for item in items:
        what = _label(item.ref.kind, item.ref.namespace, item.ref.name)
        try:
            report.done(what, _written(client, item, what, report))
        except EpicError as error:
            report.failed(f"{what}: {error}")
    return report


def delete(
    client: EpicClient, documents: Iterable[Document], settings: CoreSettings, account: str = ""
) -> Report:
    """Delete every object, in the reverse order of creation."""
    report = Report()
    own, others = split(documents, account)
    items = list(reversed(understood(parse_objects(others), settings, report, account).items))
    for item in items:
        what = _label(item.ref.kind, item.ref.namespace, item.ref.name)
        try:
            there = client.find(item.address.path) is not None
            report.done(what, remove(client, Owned.of(item)) if there else "not found")
        except EpicError as error:
            report.failed(f"{what}: {error}")
    if own:
        # What gateways use can go when they have gone.
        _wait_until_gone(client, items, report)
    for obj in reversed(own):
        try:
            report.done(obj, platform.remove(client, obj))
        except EpicError as error:
            report.failed(f"{obj}: {error}")
    return report


def _written(client: EpicClient, item: Item, what: str, report: Report) -> str:
    """Write an item; one of an earlier object of that name is waited for."""
    try:
        return write_item(client, item)
    except BeingDeleted:
        report.warn(f"{what}: it is being deleted; waiting until it is gone")
    _wait_until_gone(client, [item], report)
    return write_item(client, item)


def _wait_until_gone(client: EpicClient, items: Iterable[Item], report: Report) -> None:
    end = time.monotonic() + GONE_SECONDS
    waiting = list(items)
    while waiting and time.monotonic() < end:
        waiting = [item for item in waiting if _is_leaving(client, item)]
        if waiting:
            time.sleep(_LOOK_SECONDS)
    for item in waiting:
        what = _label(item.ref.kind, item.ref.namespace, item.ref.name)
        report.warn(f"{what}: it is still being deleted; its nodes have not let go of it yet")


def _is_leaving(client: EpicClient, item: Item) -> bool:
    found = client.find(item.address.path)
    return found is not None and is_being_deleted(found, item.collection)


def _label(kind: str, namespace: str, name: str) -> str:
    return f"{kind.lower()}/{namespace}/{name}"
