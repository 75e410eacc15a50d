# SPDX-License-Identifier: Apache-2.0
"""Write and delete EPIC's own objects: what the platform team gives to accounts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from epic.cli.settings import read_secret
from epic.client import PREFIX, EpicClient
from epic.controller.objects import Document, describe, explain, without_nulls
from epic.errors import Denied, Invalid, TooManyRequests
from epic.kinds.kind import Kind
from epic.kinds.registry import KINDS
from epic.kinds.unknown_fields import unknown_in_object
from epic.model.resources import User

API_VERSION = "epic.acnodal.io/v1"
PREFIX_LABEL = "epic.acnodal.io/owning-serviceprefix"

Action = Literal["created", "configured", "unchanged", "deleted", "not found"]


ORDER = tuple(kind.name for kind in KINDS if kind.writer == "platform")
"""What the platform's administrators write, in the order in which it is made."""
USER = User.kind
_OF_USER = frozenset({"password-file", "cluster-ids"})

Prompt = Callable[[str], str]
Warn = Callable[[str], None]


class OtherAccount(Invalid):
    """A document is of another account than the one that the command is for."""


@dataclass(frozen=True)
class PlatformObject:
    """An object of EPIC as it was read."""

    kind: str
    account: str
    name: str
    spec: dict[str, Any]
    source: str
    unknown: tuple[str, ...] = ()
    """Paths of fields that are not read."""

    def __str__(self) -> str:
        name = f"{self.account}/{self.name}" if self.account else self.name
        return f"{self.kind.lower()}/{name}"

    @property
    def path(self) -> str:
        """Where it is."""
        return f"{PREFIX}/{KINDS[self.kind].path(self.account, self.name)}"


def parse(document: Document, account: str = "") -> PlatformObject:
    """The object in a document; `account` is meant where the document names none.

    Raises Invalid, OtherAccount where the document names another one.
    """
    content = without_nulls(document.content)
    what = f"{document.source}: {describe(content)}"
    kind = content.get("kind")
    if kind not in ORDER:
        raise Invalid(f"{what}: kind {kind!r} of {API_VERSION} cannot be applied; use {', '.join(ORDER)}")
    metadata, spec = content.get("metadata", {}), content.get("spec", {})
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        raise Invalid(f"{what}: metadata and spec must be mappings")
    name = metadata.get("name")
    if not isinstance(name, str) or not name or "/" in name:
        raise Invalid(f"{what}: metadata.name must be a name")
    of_account = KINDS[kind].of_account
    owner = str(metadata.get("namespace") or account) if of_account else ""
    if account and of_account and owner != account:
        raise OtherAccount(
            f"{what} is of account {owner!r} by metadata.namespace, and --account says {account!r}; "
            "leave one of them out"
        )
    if of_account and not owner:
        raise Invalid(f"{what}: metadata.namespace must be the account's name (or give --account)")
    if kind == "LBServiceGroup" and "service-prefix" not in spec:
        labels = metadata.get("labels")
        prefix = labels.get(PREFIX_LABEL) if isinstance(labels, dict) else None
        spec = {**spec, "service-prefix": prefix} if prefix else spec
    return PlatformObject(kind, owner, name, spec, document.source, _unknown(kind, content))


def _unknown(kind: str, content: dict[str, Any]) -> tuple[str, ...]:
    if kind != USER:
        return tuple(unknown_in_object(KINDS[kind], content))
    # Of a user's spec EPIC stores nothing as it is given.
    around = unknown_in_object(KINDS[kind], {**content, "spec": {}})
    return (*around, *(f"spec.{name}" for name in sorted(content.get("spec", {}).keys() - _OF_USER)))


def write(client: EpicClient, obj: PlatformObject, prompt: Prompt, warn: Warn) -> Action:
    """Create the object or change it; nothing is written when it is as wanted."""
    for field in obj.unknown:
        meant = (
            f"; known are {_known(obj.kind)}" if field.startswith("spec.") and field.count(".") == 1 else ""
        )
        warn(f"{obj.source}: {obj}: {field} is not known and ignored{meant}")
    if obj.kind == USER:
        return _write_user(client, obj, prompt)
    kind = KINDS[obj.kind]
    key = kind.in_rest.key
    wanted = _checked(kind, obj)
    existing = client.find(obj.path)
    if existing is not None and _is_as_wanted(kind, existing[key]["spec"], wanted):
        return "unchanged"
    client.put(obj.path, {key: {"metadata": {"name": obj.name}, "spec": obj.spec}})
    return "created" if existing is None else "configured"


def _is_as_wanted(kind: Kind[Any], spec: object, wanted: BaseModel) -> bool:
    existing = kind.spec.model_validate(spec)
    # What a manifest does not say of these stays, as an operator may have set it.
    kept = kind.kept - wanted.model_fields_set
    return wanted.model_copy(update={field: getattr(existing, field) for field in kept}) == existing


def remove(client: EpicClient, obj: PlatformObject) -> Action:
    """Delete the object."""
    if client.find(obj.path) is None:
        return "not found"
    client.delete(obj.path)
    return "deleted"


def _known(kind: str) -> str:
    fields = KINDS[kind].spec.model_fields
    names = _OF_USER if kind == USER else {info.alias or name for name, info in fields.items()}
    return ", ".join(sorted(names))


def _checked(kind: Kind[Any], obj: PlatformObject) -> BaseModel:
    try:
        return kind.spec.model_validate(obj.spec)
    except ValidationError as error:
        raise Invalid(f"{obj.source}: {obj}: spec: {explain(error)}") from error


def _write_user(client: EpicClient, obj: PlatformObject, prompt: Prompt) -> Action:
    if "password" in obj.spec:
        raise Invalid(f"{obj.source}: {obj}: no passwords in manifests; name a file by spec.password-file")
    existing = client.find(obj.path)
    wanted: dict[str, Any] = {}
    password = _wanted_password(obj, prompt, is_new=existing is None)
    if password is not None and (existing is None or not _is_password(client, obj, password)):
        wanted["password"] = password
    # What a manifest does not say of clusters stays.
    clusters = obj.spec.get("cluster-ids")
    if clusters is not None and (existing is None or clusters != existing["user"]["spec"]["cluster-ids"]):
        wanted["clusterIDs"] = clusters
    if not wanted:
        return "unchanged"
    users = f"{PREFIX}/{KINDS[USER].path(obj.account)}"
    client.post(users, {"user": {"name": obj.name, **wanted}})
    return "created" if existing is None else "configured"


def _wanted_password(obj: PlatformObject, prompt: Prompt, *, is_new: bool) -> str | None:
    """The password that a manifest or somebody gives; None: who has one keeps it."""
    file = obj.spec.get("password-file")
    if file is not None:
        directory = Path(obj.source).parent if Path(obj.source).is_file() else Path()
        return read_secret(directory / Path(str(file)).expanduser())
    return prompt(f"Password of the new user {obj.account}/{obj.name}") if is_new else None


def _is_password(client: EpicClient, obj: PlatformObject, password: str) -> bool:
    with client.as_user(obj.name, password) as user:
        try:
            user.get(f"{PREFIX}/accounts/{obj.account}")
        except (Denied, TooManyRequests):
            # Nobody may try so many passwords at once; one that is right is written again then.
            return False
    return True
