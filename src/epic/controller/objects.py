# SPDX-License-Identifier: Apache-2.0
"""The client's objects as typed data, read from plain documents. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from difflib import SequenceMatcher
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import AwareDatetime, Field, SecretStr, ValidationError

from epic.model.base import Camel, Kebab
from epic.model.gatewayapi import (
    Endpoint,
    EndpointPort,
    GatewaySpec,
    HTTPRouteSpec,
    PortNumber,
    TCPRouteSpec,
)
from epic.model.values.naming import AccountName, ObjectName

CONFIG_GROUP = "puregw.epic-gateway.org"
GATEWAY_GROUP = "gateway.networking.k8s.io"


class Ref(NamedTuple):
    """Which object of the client."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Document(NamedTuple):
    """An object as it was read, and where: a file's name, or another source's; its number there from 1."""

    source: str
    content: dict[str, Any]
    number: int = 0


class Problem(NamedTuple):
    """What is wrong with an object, and the Gateway API's word for it; document 0 is the whole source."""

    source: str
    object: str
    reason: str
    message: str
    document: int = 0

    def __str__(self) -> str:
        where = f"{self.source}: document {self.document}" if self.document else self.source
        return f"{where}: {self.object}: {self.message} ({self.reason})"


class Unseen(NamedTuple):
    """What cannot be seen at present, and so is not gone: objects, and files of which a part is not known."""

    refs: frozenset[Ref] = frozenset()
    files: frozenset[str] = frozenset()

    def hides(self, ref: Ref) -> bool:
        """Whether there may be an object that was not found."""
        return bool(self.files) or ref in self.refs


NOTHING_UNSEEN = Unseen()


class ObjectMeta(Camel):
    """Who an object is."""

    name: str = Field(min_length=1)
    namespace: str = "default"
    uid: str = ""
    creation_timestamp: AwareDatetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class ClientObject(Camel):
    """An object of the client; `content` is the document that it was read from."""

    kind: ClassVar[str]
    group: ClassVar[str]
    namespaced: ClassVar[bool] = True
    metadata: ObjectMeta
    source: str = Field(default="", exclude=True)
    document: int = Field(default=0, exclude=True)
    content: dict[str, Any] = Field(default={}, exclude=True, repr=False)

    @cached_property
    def ref(self) -> Ref:
        """Which object it is."""
        return Ref(self.kind, self.metadata.namespace if self.namespaced else "", self.metadata.name)

    def problem(self, reason: str, message: str) -> Problem:
        """What is wrong with it."""
        return Problem(self.source, str(self.ref), reason, message, self.document)


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
UNREAD = "InvalidKind"
"""The reason of documents that are of no concern here."""
_ALIKE = 0.85
T = TypeVar("T", bound=ClientObject)


class Objects:
    """The client's objects, each once; they may change from one look to the next."""

    def __init__(self, objects: Iterable[ClientObject] = ()) -> None:
        self._by_kind: dict[str, dict[Ref, ClientObject]] = defaultdict(dict)
        for obj in objects:
            self.put(obj)

    def put(self, obj: ClientObject) -> None:
        """Add an object, in place of the one that there was."""
        self._by_kind[obj.kind][obj.ref] = obj

    def remove(self, ref: Ref) -> None:
        """Leave an object out; there need be none."""
        self._by_kind[ref.kind].pop(ref, None)

    def everything(self) -> list[ClientObject]:
        """All objects, sorted."""
        every = (obj for objects in self._by_kind.values() for obj in objects.values())
        return sorted(every, key=lambda obj: obj.ref)

    def all(self, kind: type[T]) -> list[T]:
        """All objects of a kind, sorted by namespace and name."""
        found = self._by_kind[kind.kind].values()
        return sorted((obj for obj in found if isinstance(obj, kind)), key=lambda obj: obj.ref)

    def find(self, kind: type[T], namespace: str, name: str) -> T | None:
        """The object, None if there is none."""
        found = self.get(Ref(kind.kind, namespace if kind.namespaced else "", name))
        return found if isinstance(found, kind) else None

    def get(self, ref: Ref) -> ClientObject | None:
        """The object, None if there is none."""
        return self._by_kind[ref.kind].get(ref)


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
            problems.append(parsed.problem("Duplicate", message))
        else:
            objects[parsed.ref] = parsed
    return list(objects.values()), problems


def parse_document(document: Document) -> ClientObject | Problem:
    """The object in a document, or what is wrong with it."""
    content = document.content
    kind, name = content.get("kind"), str(ref_of(content) or describe(content))
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None or model.group != _group(content):
        known = ", ".join(f"{c.group or 'v1'} {c.kind}" for c in KINDS.values())
        meant = meant_kind(content)
        message = f"kind {kind!r} of apiVersion {content.get('apiVersion')!r} is not read here; " + (
            f"is {meant.group or 'v1'} {meant.kind} meant?" if meant else f"known are {known}"
        )
        return Problem(document.source, name, "Invalid" if meant else UNREAD, message, document.number)
    try:
        clean = without_nulls(content)
        where = {"source": document.source, "document": document.number}
        return model.model_validate({**clean, **where, "content": clean})
    except ValidationError as error:
        return Problem(document.source, name, "Invalid", explain(error), document.number)


def meant_kind(content: dict[str, Any]) -> type[ClientObject] | None:
    """The kind of a document, also where it is not quite spelled so; None for kinds that are not read."""
    kind, group = content.get("kind"), _group(content)
    if not isinstance(kind, str):
        return None
    found = KINDS.get(kind)
    if found is not None and found.group == group:
        return found
    return next((c for c in KINDS.values() if _alike(c.kind, kind) and _alike(c.group, group)), None)


def _alike(one: str, other: str) -> bool:
    return SequenceMatcher(None, one.casefold(), other.casefold()).ratio() >= _ALIKE


def _group(content: dict[str, Any]) -> str:
    return str(content.get("apiVersion", "")).rpartition("/")[0]


def ref_of(content: dict[str, Any]) -> Ref | None:
    """Which object a document is about, also when it is wrong; None if that cannot be told."""
    model, metadata = meant_kind(content), content.get("metadata")
    if model is None or not isinstance(metadata, dict):
        return None
    name, namespace = metadata.get("name"), metadata.get("namespace") or "default"
    if not isinstance(name, str) or not name or not isinstance(namespace, str):
        return None
    return Ref(model.kind, namespace if model.namespaced else "", name)


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
