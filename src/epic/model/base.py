# SPDX-License-Identifier: Apache-2.0
"""What all resources share: spelling on the wire, metadata, conditions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class Camel(BaseModel):
    """Spelled `camelCase` on the wire, as Kubernetes and the Gateway API do. Unknown keys are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    def wire(self) -> dict[str, object]:
        """The JSON object on the wire, without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Kebab(BaseModel):
    """Spelled `kebab-case` on the wire, as EPIC's own fields are. Unknown keys are ignored."""

    model_config = ConfigDict(alias_generator=_kebab, populate_by_name=True, extra="ignore", frozen=True)

    def wire(self) -> dict[str, object]:
        """The JSON object on the wire, without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def now() -> datetime:
    """The time, in UTC, to the second, as Kubernetes writes it."""
    return datetime.now(UTC).replace(microsecond=0)


class Condition(Camel):
    """A Kubernetes condition."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: datetime = Field(default_factory=now)
    observed_generation: int = 0


def with_condition(conditions: tuple[Condition, ...], new: Condition) -> tuple[Condition, ...]:
    """The list with `new` in place of the one of its type; the transition time moves only with the status."""
    old = next((c for c in conditions if c.type == new.type), None)
    if old is not None and old.status == new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    return (*(c for c in conditions if c.type != new.type), new)


class Metadata(Camel):
    """Who an object is. `namespace` is the account's name, empty for objects of the whole cluster."""

    name: str
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    generation: int = 1
    resource_version: int = 0


class Resource(Camel):
    """An object in the store. Subclasses set `kind` and declare `spec` and `status`."""

    kind: ClassVar[str]
    metadata: Metadata

    @property
    def name(self) -> str:
        """The object's name."""
        return self.metadata.name

    @property
    def account(self) -> str:
        """The account that owns it; empty for objects of the whole cluster."""
        return self.metadata.namespace

    @property
    def deleting(self) -> bool:
        """Whether it is to go; it stays until all who have something of it have let go."""
        return self.metadata.deletion_timestamp is not None

    def at(self, resource_version: int) -> Self:
        """The same object with the revision that the store gave it."""
        return self.model_copy(
            update={"metadata": self.metadata.model_copy(update={"resource_version": resource_version})}
        )


def observed(
    obj: Resource, type_: str, status: Literal["True", "False", "Unknown"], reason: str, message: str = ""
) -> Condition:
    """A condition of the object as it is now."""
    return Condition(
        type=type_,
        status=status,
        reason=reason,
        message=message,
        observed_generation=obj.metadata.generation,
    )


class ClientRef(Camel):
    """The client's object that this one stands for, and since when the client has it, if that is known."""

    cluster_id: str = Field(default="", alias="clusterID")
    namespace: str = ""
    name: str = ""
    uid: str = ""
    creation_timestamp: AwareDatetime | None = None
