# SPDX-License-Identifier: Apache-2.0
"""`epicctl apply` and `delete`: manifests of both kinds, EPIC's own and the Gateway API's."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from epic.cli.commands import platform
from epic.cli.commands.manifests import Manifests
from epic.cli.commands.owners import hosts_of, other_routes, shown
from epic.cli.commands.parents import find_parents
from epic.cli.printing.output import say, warn
from epic.client import EpicClient
from epic.controller.apply import BeingDeleted, Written, is_being_deleted, remove, write_item
from epic.controller.classes import CoreSettings
from epic.controller.core import IGNORED, ignored_fields, translate
from epic.controller.desired import Address, Desired, Item
from epic.controller.objects import ClientObject, Objects
from epic.controller.state import Owned
from epic.errors import EpicError, Invalid
from epic.kinds.registry import KINDS

Confirm = Callable[[str], bool]
"""Asks whether something is to be done all the same."""
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


def understood(
    objects: Iterable[ClientObject], settings: CoreSettings, report: Report, account: str
) -> Desired:
    """What the Gateway API's objects ask for; what is wrong with them is told.

    Raises Invalid when a configuration among them names another account than the one given.
    """
    desired = translate(Objects(objects), settings)
    for problem in desired.problems:
        if problem.is_warning:
            report.warn(str(problem))
        elif problem.reason != IGNORED:
            report.failed(str(problem))
    named = {item.address.account: item for item in desired.items if item.address.account != account}
    if account and named:
        other, item = min(named.items(), key=lambda pair: pair[0])
        what = _title(item)
        raise Invalid(
            f"{item.source}: {what} is of account {other!r} by its GatewayClassConfig, "
            f"and --account says {account!r}; leave one of them out"
        )
    return desired


def _warn_of_ignored_fields(objects: Iterable[ClientObject], report: Report) -> set[str]:
    """Tell of fields that are ignored; returns them."""
    found: set[str] = set()
    for obj in objects:
        ignored = ignored_fields(obj)
        found.update(ignored)
        for name in ignored:
            report.warn(f"{obj.source}: {obj.ref}: {name} is not known and ignored")
    return found


def _warn_as_server(client: EpicClient, what: object, told: Collection[str], report: Report) -> None:
    """Tell what the server warned of, but for fields that were told of."""
    for text in client.take_warnings():
        if not any(name.removeprefix("spec") in text for name in told):
            report.warn(f"{what}: the server says: {text}")


def apply(
    client: EpicClient,
    manifests: Manifests,
    settings: CoreSettings,
    prompt: platform.Prompt,
    account: str = "",
) -> Report:
    """Create or change every object; one that fails does not stop the others."""
    report = Report()
    for problem in manifests.problems:
        report.failed(problem)
    ignored = _warn_of_ignored_fields(manifests.objects, report)
    items = _items(client, manifests, settings, report, account)
    if not manifests.own and not items and not report.problems:
        report.warn(
            "there is nothing to be written: the manifests hold no Gateway, no route and no Service of one"
        )
    for obj in manifests.own:
        try:
            report.done(obj, platform.write(client, obj, prompt, report.warn))
            _warn_as_server(client, obj, obj.unknown, report)
        except EpicError as error:
            report.failed(f"{obj}: {error}")
    for item in items:
        what = _title(item)
        try:
            written = _written(client, item, what, report)
            report.done(what, written.action)
            for reason, message in written.refusals:
                report.failed(f"{what}: EPIC does not serve it ({reason}): {message}")
            _warn_as_server(client, what, ignored, report)
        except EpicError as error:
            report.failed(f"{what}: {error}")
    return report


def _items(
    client: EpicClient, manifests: Manifests, settings: CoreSettings, report: Report, account: str
) -> list[Item]:
    """What the manifests ask for; Gateways that routes need and that are on EPIC only are no part of it."""
    parents = find_parents(client, manifests.objects, account, settings.cluster)
    known = {obj.ref for obj in parents}
    found = understood([*manifests.objects, *parents], settings, report, account).items
    return [item for item in found if item.ref not in known]


def delete(
    client: EpicClient,
    manifests: Manifests,
    settings: CoreSettings,
    confirm: Confirm,
    account: str = "",
) -> Report:
    """Delete every object, in the reverse order of creation, unless somebody else has something of it."""
    report = Report()
    for problem in manifests.problems:
        report.failed(problem)
    items = list(reversed(_items(client, manifests, settings, report, account)))
    given = {item.address for item in items}
    for item in items:
        what = _title(item)
        try:
            if reason := _reason_to_leave(client, item, given, confirm):
                report.failed(f"{what}: it is left: {reason}")
                continue
            there = client.find(item.address.path) is not None
            report.done(what, remove(client, Owned.of(item)) if there else "not found")
        except EpicError as error:
            report.failed(f"{what}: {error}")
    if manifests.own:
        # What gateways use can go when they have gone.
        _wait_until_gone(client, items, report)
    for obj in reversed(manifests.own):
        try:
            report.done(obj, platform.remove(client, obj))
        except EpicError as error:
            report.failed(f"{obj}: {error}")
    return report


def _reason_to_leave(client: EpicClient, item: Item, given: set[Address], confirm: Confirm) -> str:
    """Why the object is not to be deleted because of these manifests; empty if it is."""
    if hosts := hosts_of(client, item):
        kind = KINDS.of_collection(item.collection).singular
        return f"{hosts} ask for it; remove it there, or: epicctl delete {kind} {item.uid}"
    routes = other_routes(client, item, given) if item.collection == "proxies" else []
    if not routes:
        return ""
    others = f"routes that are not in the manifests lead to it: {shown(routes)}"
    if confirm(f"{_title(item)}: {others}. Delete it all the same?"):
        return ""
    return f"{others}; delete them first, or: epicctl delete gateway {item.uid}"


def _written(client: EpicClient, item: Item, what: str, report: Report) -> Written:
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
        what = _title(item)
        report.warn(f"{what}: it is still being deleted; its nodes have not let go of it yet")


def _is_leaving(client: EpicClient, item: Item) -> bool:
    found = client.find(item.gateway.path)
    return found is not None and is_being_deleted(found, item.gateway.collection)


def _title(item: Item) -> str:
    return f"{item.ref.kind.lower()}/{item.ref.namespace}/{item.ref.name}"
