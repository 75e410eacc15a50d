# SPDX-License-Identifier: Apache-2.0
"""Write and delete EPIC's own objects: what the platform team gives to accounts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from epic.cli.settings import read_secret
from epic.client import PREFIX, Denied, EpicClient
from epic.controller.objects import Document, describe, explain, without_nulls
from epic.errors import Invalid, QuotaExceeded
from epic.model.resources import AccountSpec, LBServiceGroupSpec, NodeSpec, ServicePrefixSpec

API_VERSION = "epic.acnodal.io/v1"
PREFIX_LABEL = "epic.acnodal.io/owning-serviceprefix"

Action = Literal["created", "configured", "unchanged", "deleted", "not found"]


@dataclass(frozen=True)
class Kind:
    """How an object is written: its key in a body, its spec, and its collection's path."""

    name: str
    key: str
    spec: type[BaseModel]
    collection: str
    of_account: bool = False

    def path(self, account: str, name: str) -> str:
        """The path of an object."""
        return f"{PREFIX}/{self.collection.format(account=account)}/{name}"


_KINDS = {
    kind.name: kind
    for kind in (
        Kind("Account", "account", AccountSpec, "accounts"),
        Kind("ServicePrefix", "service-prefix", ServicePrefixSpec, "service-prefixes"),
        Kind("LBServiceGroup", "group", LBServiceGroupSpec, "accounts/{account}/groups", of_account=True),
        Kind("Node", "node", NodeSpec, "nodes"),
    )
}
_KEPT_FIELDS = frozenset({"schedulable", "drain"})
"""Of a node: the server keeps them as an operator set them, where a manifest does not say them."""
USER = "User"
ORDER = (*_KINDS, USER)

Prompt = Callable[[str], str]
Warn = Callable[[str], None]


@dataclass(frozen=True)
class PlatformObject:
    """An object of EPIC as it was read."""

    kind: str
    account: str
    name: str
    spec: dict[str, Any]
    source: str

    def __str__(self) -> str:
        name = f"{self.account}/{self.name}" if self.account else self.name
        return f"{self.kind.lower()}/{name}"

    @property
    def path(self) -> str:
        """Where it is."""
        if self.kind == USER:
            return f"{PREFIX}/accounts/{self.account}/users/{self.name}"
        return _KINDS[self.kind].path(self.account, self.name)


def parse(document: Document, account: str = "") -> PlatformObject:
    """The object in a document; `account` is meant where the document names none."""
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
    of_account = kind == USER or _KINDS[kind].of_account
    owner = str(metadata.get("namespace") or account) if of_account else ""
    if account and of_account and owner != account:
        raise Invalid(
            f"{what} is of account {owner!r} by metadata.namespace, and --account says {account!r}; "
            "leave one of them out"
        )
    if of_account and not owner:
        raise Invalid(f"{what}: metadata.namespace must be the account's name (or give --account)")
    if kind == "LBServiceGroup" and "service-prefix" not in spec:
        labels = metadata.get("labels")
        prefix = labels.get(PREFIX_LABEL) if isinstance(labels, dict) else None
        spec = {**spec, "service-prefix": prefix} if prefix else spec
    return PlatformObject(kind, owner, name, spec, document.source)


def write(client: EpicClient, obj: PlatformObject, prompt: Prompt, warn: Warn) -> Action:
    """Create the object or change it; nothing is written when it is as wanted."""
    if obj.kind == USER:
        return _write_user(client, obj, prompt)
    kind = _KINDS[obj.kind]
    wanted = _checked(kind, obj, warn)
    existing = client.find(obj.path)
    if existing is not None and _is_as_wanted(kind.spec.model_validate(existing[kind.key]["spec"]), wanted):
        return "unchanged"
    client.put(obj.path, {kind.key: {"metadata": {"name": obj.name}, "spec": obj.spec}})
    return "created" if existing is None else "configured"


def _is_as_wanted(existing: BaseModel, wanted: BaseModel) -> bool:
    kept = _KEPT_FIELDS - wanted.model_fields_set if isinstance(wanted, NodeSpec) else frozenset()
    return wanted.model_copy(update={field: getattr(existing, field) for field in kept}) == existing


def remove(client: EpicClient, obj: PlatformObject) -> Action:
    """Delete the object."""
    if client.find(obj.path) is None:
        return "not found"
    client.delete(obj.path)
    return "deleted"


def _checked(kind: Kind, obj: PlatformObject, warn: Warn) -> BaseModel:
    try:
        wanted = kind.spec.model_validate(obj.spec)
    except ValidationError as error:
        raise Invalid(f"{obj.source}: {obj}: spec: {explain(error)}") from error
    known = {field.alias or name for name, field in kind.spec.model_fields.items()}
    for key in sorted(obj.spec.keys() - known):
        warn(
            f"{obj.source}: {obj}: spec.{key} is not known and ignored; known are {', '.join(sorted(known))}"
        )
    return wanted


def _write_user(client: EpicClient, obj: PlatformObject, prompt: Prompt) -> Action:
    if "password" in obj.spec:
        raise Invalid(f"{obj.source}: {obj}: no passwords in manifests; name a file by spec.password-file")
    existing = client.find(obj.path)
    file = obj.spec.get("password-file")
    if file is not None:
        directory = Path(obj.source).parent if Path(obj.source).is_file() else Path()
        password = read_secret(directory / Path(str(file)).expanduser())
    elif existing is not None:
        return "unchanged"
    else:
        password = prompt(f"Password of the new user {obj.account}/{obj.name}")
    if existing is not None and _is_password(client, obj, password):
        return "unchanged"
    users = f"{PREFIX}/accounts/{obj.account}/users"
    client.post(users, {"user": {"name": obj.name, "password": password}})
    return "created" if existing is None else "configured"


def _is_password(client: EpicClient, obj: PlatformObject, password: str) -> bool:
    with client.as_user(obj.name, password) as user:
        try:
            user.get(f"{PREFIX}/accounts/{obj.account}")
        except (Denied, QuotaExceeded):
            # Nobody may try so many passwords at once; one that is right is written again then.
            return False
    return True
