# SPDX-License-Identifier: Apache-2.0
"""The client's objects as typed data, read from plain documents. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import Field, SecretStr, ValidationError

from epic.model.base import Camel, Kebab
from epic.model.gatewayapi import (
    Endpoint,
    EndpointPort,
    GatewaySpec,
    HTTPRouteSpec,
    PortNumber,
    TCPRouteSpec,
)
from epic.model.naming import AccountName, ObjectName

CONFIG_GROUP = "puregw.epic-gateway.org"
CONTROLLER_NAME = "epic-gateway.org/puregw"
GATEWAY_GROUP = "gateway.networking.k8s.io"


class Ref(NamedTuple):
    """Which object of the client."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Document(NamedTuple):
    """An object as it was read, and where: a file's name, or another source's."""

    source: str
    content: dict[str, Any]


class Problem(NamedTuple):
    """What is wrong with an object, with the word of the Gateway API for it."""

    source: str
    object: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.source}: {self.object}: {self.message} ({self.reason})"


class ObjectMeta(Camel):
    """Who an object is."""

    name: str = Field(min_length=1)
    namespace: str = "default"
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class ClientObject(Camel):
    """An object of the client; `content` is the document that it was read from."""

    kind: ClassVar[str]
    group: ClassVar[str]
    namespaced: ClassVar[bool] = True
    metadata: ObjectMeta
    source: str = Field(default="", exclude=True)
    content: dict[str, Any] = Field(default={}, exclude=True, repr=False)

    @property
    def ref(self) -> Ref:
        """Which object it is."""
        return Ref(self.kind, self.metadata.namespace if self.namespaced else "", self.metadata.name)


class EpicParameters(Kebab):
    """Where a class makes its gateways. Without credentials, the user's own are meant."""

    cluster_name: str = ""
    gateway_hostname: str = Field(default="", pattern=r"^[^\s/@]*$")
    service_account: str = ""
    service_key: SecretStr = SecretStr("")
    user_namespace: AccountName
    gateway_template: ObjectName


class GatewayClassConfigSpec(Camel):
    """A GatewayClassConfig's spec."""

    epic: EpicParameters


class GatewayClassConfig(ClientObject):
    """The account and template of a GatewayClass."""

    kind: ClassVar[str] = "GatewayClassConfig"
    group: ClassVar[str] = CONFIG_GROUP
    spec: GatewayClassConfigSpec


class ParametersRef(Camel):
    """The GatewayClassConfig of a class."""

    group: str
    kind: str
    name: str
    namespace: str = "default"


class GatewayClassSpec(Camel):
    """A GatewayClass's spec."""

    controller_name: str
    parameters_ref: ParametersRef | None = None


class GatewayClass(ClientObject):
    """A class of gateways; others' are left alone."""

    kind: ClassVar[str] = "GatewayClass"
    group: ClassVar[str] = GATEWAY_GROUP
    namespaced: ClassVar[bool] = False
    spec: GatewayClassSpec


class Gateway(ClientObject):
    """A gateway."""

    kind: ClassVar[str] = "Gateway"
    group: ClassVar[str] = GATEWAY_GROUP
    spec: GatewaySpec


class HTTPRoute(ClientObject):
    """Routes of HTTP requests."""

    kind: ClassVar[str] = "HTTPRoute"
    group: ClassVar[str] = GATEWAY_GROUP
    spec: HTTPRouteSpec


class TCPRoute(ClientObject):
    """Routes of TCP connections."""

    kind: ClassVar[str] = "TCPRoute"
    group: ClassVar[str] = GATEWAY_GROUP
    spec: TCPRouteSpec


class ClientServicePort(Camel):
    """A port of a Service; without a target port it is the endpoints' port too."""

    name: str = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    port: PortNumber
    target_port: int | str | None = None


class ServiceSpec(Camel):
    """A Service's spec."""

    ports: tuple[ClientServicePort, ...] = ()


class Service(ClientObject):
    """What routes send requests to."""

    kind: ClassVar[str] = "Service"
    group: ClassVar[str] = ""
    spec: ServiceSpec = ServiceSpec()


class EndpointSlice(ClientObject):
    """Endpoints of the Service that its label names."""

    kind: ClassVar[str] = "EndpointSlice"
    group: ClassVar[str] = "discovery.k8s.io"
    address_type: Literal["IPv4", "IPv6", "FQDN"] = "IPv4"
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


KINDS: dict[str, type[ClientObject]] = {
    c.kind: c
    for c in (GatewayClassConfig, GatewayClass, Gateway, HTTPRoute, TCPRoute, Service, EndpointSlice)
}
T = TypeVar("T", bound=ClientObject)


class Objects:
    """The client's objects of one moment, each once."""

    def __init__(self, objects: Iterable[ClientObject] = ()) -> None:
        self._by_ref = {obj.ref: obj for obj in objects}

    def everything(self) -> list[ClientObject]:
        """All objects, sorted."""
        return sorted(self._by_ref.values(), key=lambda obj: obj.ref)

    def all(self, kind: type[T]) -> list[T]:
        """All objects of a kind, sorted by namespace and name."""
        return [obj for obj in self.everything() if isinstance(obj, kind)]

    def find(self, kind: type[T], namespace: str, name: str) -> T | None:
        """The object, None if there is none."""
        found = self._by_ref.get(Ref(kind.kind, namespace if kind.namespaced else "", name))
        return found if isinstance(found, kind) else None


def parse(documents: Iterable[Document]) -> tuple[list[ClientObject], list[Problem]]:
    """The objects in the documents, and what is wrong with the others."""
    objects: dict[Ref, ClientObject] = {}
    problems: list[Problem] = []
    for document in documents:
        parsed = parse_document(document)
        if isinstance(parsed, Problem):
            problems.append(parsed)
        elif parsed.ref in objects:
            message = f"the same object is also in {objects[parsed.ref].source}; keep one of them"
            problems.append(Problem(document.source, str(parsed.ref), "Duplicate", message))
        else:
            objects[parsed.ref] = parsed
    return list(objects.values()), problems


def parse_document(document: Document) -> ClientObject | Problem:
    """The object in a document, or what is wrong with it."""
    content = document.content
    kind, name = content.get("kind"), describe(content)
    model = KINDS.get(kind) if isinstance(kind, str) else None
    group = str(content.get("apiVersion", "")).rpartition("/")[0]
    if model is None or model.group != group:
        known = ", ".join(f"{c.group or 'v1'} {c.kind}" for c in KINDS.values())
        message = (
            f"kind {kind!r} of apiVersion {content.get('apiVersion')!r} is not read here; known are {known}"
        )
        return Problem(document.source, name, "InvalidKind", message)
    try:
        clean = without_nulls(content)
        return model.model_validate({**clean, "source": document.source, "content": clean})
    except ValidationError as error:
        return Problem(document.source, name, "Invalid", explain(error))


def describe(content: dict[str, Any]) -> str:
    """An object's kind and name for messages, as far as it has them."""
    metadata = content.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return f"{content.get('kind') or 'object'} {name or 'without metadata.name'}"


def explain(error: ValidationError) -> str:
    """What is wrong where, without values: they may be secrets."""
    return "; ".join(
        f"{'.'.join(str(part) for part in e['loc']) or 'the object'}: "
        f"{e['msg'].removeprefix('Value error, ').removeprefix('Input ')}"
        for e in error.errors(include_url=False, include_input=False)
    )


def without_nulls(value: Any) -> Any:
    """The value without null fields, which mean absent ones."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    return value
