# SPDX-License-Identifier: Apache-2.0
"""A kind as a whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, cast

from pydantic import BaseModel

from epic.kinds.faults import FieldError
from epic.model.base import Resource
from epic.model.values.naming import ACCOUNT_PATTERN, OBJECT_PATTERN

T = TypeVar("T", bound=Resource)

Scope = Literal["cluster", "account"]
Writer = Literal["account", "platform", "epic"]
Conversion = Callable[[dict[str, Any]], dict[str, Any]]
"""An object's JSON in one stored form to the same in the next."""
IndexValue = str | tuple[str, ...]


@dataclass(frozen=True)
class NameRule:
    """What an object may be called, as a regular expression and in words."""

    pattern: str
    right: str

    def allows(self, name: str) -> bool:
        """Whether it is such a name."""
        return re.fullmatch(self.pattern, name) is not None


ACCOUNT_NAME = NameRule(ACCOUNT_PATTERN, "1 to 40 lower-case letters, digits and inner '-'")
OBJECT_NAME = NameRule(OBJECT_PATTERN, "1 to 63 letters, digits and inner '-', '_', '.'")
NUMBER_NAME = NameRule(r"^[1-9][0-9]{0,18}$", "a number")
ADDRESS_NAME = NameRule(r"^[0-9a-f.:]{2,45}$", "an address")


@dataclass(frozen=True)
class Rest:
    """Where a kind is in the REST API: the last part of its collection's path, its key in bodies."""

    collection: str
    key: str


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind: `resource` is its plural in paths of the Kubernetes-style API.

    `plural`, `singular`, `short_names` and `aliases` are what people call it and epicctl reads. `writer` is
    who gives its spec: users of an account, the platform's administrators, or EPIC alone. `rest` is missing
    where the REST API has no collection of it.
    """

    model: type[T]
    resource: str
    plural: str
    singular: str
    scope: Scope
    writer: Writer
    short_names: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    rest: Rest | None = None
    named: NameRule = OBJECT_NAME
    # How it is stored: the form written now, and how each older one becomes the next.
    form: int = 1
    conversions: Mapping[int, Conversion] = field(default_factory=dict)
    # By what its objects are found.
    indexes: Mapping[str, Callable[[T], Iterable[IndexValue]]] = field(default_factory=dict)
    # Fields of the spec that EPIC fills in, and those that stay as they are unless a client gives them.
    filled_in: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()
    # Paths of fields that clients' objects have besides, as Kubernetes does, and that mean nothing here.
    known: frozenset[str] = frozenset()
    # What a client's object must be besides the limits of its fields.
    checks: tuple[Callable[[T], Iterator[FieldError]], ...] = ()

    @property
    def name(self) -> str:
        """As it is in objects, such as GWProxy."""
        return self.model.kind

    @property
    def names(self) -> tuple[str, ...]:
        """All that it is called, what people call it first."""
        rest = (self.rest.collection, self.rest.key) if self.rest else ()
        every = (self.plural, self.singular, *rest, *self.aliases, *self.short_names, self.resource)
        return tuple(dict.fromkeys((*every, self.name.lower())))

    @property
    def spec(self) -> type[BaseModel]:
        """The class of its objects' specs."""
        return cast("type[BaseModel]", self.model.model_fields["spec"].annotation)

    @property
    def of_account(self) -> bool:
        """Whether each account has its own."""
        return self.scope == "account"

    @property
    def in_rest(self) -> Rest:
        """Where it is in the REST API; raises ValueError if it is not."""
        if self.rest is None:
            raise ValueError(f"the REST API has no collection of {self.plural}")
        return self.rest

    def path(self, account: str, name: str = "") -> str:
        """Of the collection or of an object in the REST API, below its prefix."""
        collection = self.in_rest.collection
        place = f"accounts/{account}/{collection}" if self.of_account else collection
        return f"{place}/{name}" if name else place

    def encode(self, obj: T) -> bytes:
        """The object's stored form. Its revision is the store's; written into it, it would be one behind."""
        return obj.at(0).model_dump_json(by_alias=True).encode()

    def decode(self, body: bytes | str, revision: int) -> T:
        """The object in a stored form; raises ValueError."""
        return self.model.model_validate_json(body).at(revision)
