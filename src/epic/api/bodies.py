# SPDX-License-Identifier: Apache-2.0
"""Request bodies. A field that clients may not set is not here, and is ignored like any unknown one.

Who sends an object with one that objects of the kind do not have is told of it. What only asks for something
is refused instead: without that field it would ask for something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SecretStr,
    field_validator,
    model_validator,
)

from epic.api.gateway.compatible import with_class
from epic.errors import Invalid
from epic.kinds.item_limits import excess_items
from epic.kinds.kind import Kind
from epic.kinds.registry import (
    ACCOUNT,
    GW_ENDPOINT_SLICE,
    GW_MEMBER,
    GW_PROXY,
    GW_ROUTE,
    LB_SERVICE_GROUP,
    NODE,
    SERVICE_PREFIX,
)
from epic.kinds.unknown_fields import unknown_in_object
from epic.kinds.validation import explain
from epic.model.base import Camel, ClientRef, Kebab
from epic.model.gatewayapi import Endpoint, GatewaySpec
from epic.model.resources import (
    ENDPOINTS,
    NODE_ADDRESSES,
    AccountSpec,
    ClusterIDs,
    GWEndpointSliceSpec,
    GWRouteSpec,
    LBServiceGroupSpec,
    NodeSpec,
    PublicPorts,
    ServicePrefixSpec,
)
from epic.model.values.addresses import AnyAddress, tunnel_address, usable
from epic.model.values.client_text import ClientLine, ClientName, OptionalClientName, find_control_character
from epic.model.values.naming import (
    SOURCES_ANNOTATION,
    SOURCES_MAX,
    SOURCES_PATTERN,
    ObjectName,
)

_MOST_LEVELS = 64
"""Of objects and lists in each other; what is stored can be written and read however it is wrapped."""


def _without_nulls(value: Any, levels: int = _MOST_LEVELS) -> Any:
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict | list):
        if not levels:
            raise ValueError(
                f"objects and lists are nested too deeply; at most {_MOST_LEVELS} levels are possible"
            )
        if isinstance(value, list):
            return [_without_nulls(inner, levels - 1) for inner in value]
        for key in value:
            _check_text(key)
        return {key: _without_nulls(inner, levels - 1) for key, inner in value.items() if inner is not None}
    return value


def _check_text(text: str) -> None:
    if character := find_control_character(text):
        raise ValueError(f"there is a control character, {character!a}, in a text; remove it")


class Body(BaseModel):
    """A request body; null means absent, as it does to clients in Go.

    `kind` is that of the object in it. `unknown` are the fields that the kind does not have, and the labels
    and annotations that are not kept.
    """

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    kind: ClassVar[Kind[Any] | None] = None
    _unknown: tuple[str, ...] = PrivateAttr(())

    @property
    def unknown(self) -> tuple[str, ...]:
        """Where they are in the body."""
        return self._unknown

    @model_validator(mode="wrap")
    @classmethod
    def _nulls_are_absent(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        content = _without_nulls(data)
        if cls.kind is not None and isinstance(content, dict):
            _refuse_long_lists(cls.kind, content)
        body = handler(content)
        if cls.kind is not None and isinstance(content, dict):
            body._unknown = tuple(sorted(_unknown_fields(cls.kind, content)))
        return body


def _refuse_long_lists(kind: Kind[Any], content: dict[str, Any]) -> None:
    """Raise Invalid if a list of the object has too many items: none of them is looked at."""
    key = kind.in_rest.key
    obj = content.get(key) or content.get(key.replace("-", "_"))
    spec = obj.get("spec") if isinstance(obj, dict) else None
    errors = list(islice(excess_items(kind.spec, spec), _MOST_UNKNOWN))
    if errors:
        raise Invalid(explain(errors, f"{key}.spec"))


# Of more than can be told nobody is told.
_MOST_UNKNOWN = 500
# What a reply holds may be sent back as it is.
_AROUND = frozenset({"link"})


def _unknown_fields(kind: Kind[Any], content: dict[str, Any]) -> Iterator[str]:
    key = kind.in_rest.key
    python_key = key.replace("-", "_")
    outside = (name for name in content if name not in _AROUND and name not in (key, python_key))
    yield from islice(outside, _MOST_UNKNOWN)
    # What is valid has it, under one of its names.
    yield from unknown_in_object(kind, content.get(key) or content.get(python_key, {}), key)


class Asked(BaseModel):
    """What only asks for something; nothing of it is passed over."""

    @model_validator(mode="before")
    @classmethod
    def _has_no_unknown_fields(cls, data: Any) -> Any:
        known = {info.alias or name for name, info in cls.model_fields.items()}
        unknown = sorted(data.keys() - known) if isinstance(data, dict) else []
        if unknown:
            raise ValueError(f"there is no field {unknown[0][:80]!r} here; use {', '.join(sorted(known))}")
        return data


class InputMetadata(Camel):
    """What a client may say of an object's identity."""

    name: str = ""
    resource_version: Annotated[int | None, Field(ge=0, lt=2**63)] = None
    annotations: Annotated[dict[str, str], FailFast()] = {}

    @field_validator("annotations")
    @classmethod
    def _sources_are_names(cls, annotations: dict[str, str]) -> dict[str, str]:
        """Who asks for an object, by commas; other annotations are not kept."""
        sources = annotations.get(SOURCES_ANNOTATION, "")
        if not re.fullmatch(SOURCES_PATTERN, sources) or len(sources) > SOURCES_MAX:
            raise ValueError(
                f"{SOURCES_ANNOTATION}: names such as cluster/host by commas, {SOURCES_MAX} characters"
            )
        return annotations


class Input(BaseModel):
    metadata: InputMetadata = InputMetadata()


class ClientObjectRef(ClientRef):
    """A client's object; its UID becomes the name on EPIC."""

    cluster_id: Annotated[ClientLine, Field(alias="clusterID")] = ""
    namespace: OptionalClientName = ""
    name: OptionalClientName = ""
    uid: ObjectName


class ProxySpecInput(Kebab):
    """All that a client may set of a gateway."""

    client_ref: Annotated[ClientObjectRef, Field(alias="clientRef")]
    display_name: ClientLine = ""
    public_ports: PublicPorts = ()
    gateway: Annotated[GatewaySpec | None, BeforeValidator(with_class)] = None


class ProxyInput(Input):
    """A gateway."""

    spec: ProxySpecInput


class ProxyBody(Body):
    """POST and PUT of a gateway."""

    kind = GW_PROXY
    proxy: ProxyInput


class MemberSpecInput(ProxySpecInput):
    """What a client's Gateway asks of the gateway that it shares."""

    sharing_key: ObjectName


class MemberInput(Input):
    """A share in a gateway."""

    spec: MemberSpecInput


class MemberBody(Body):
    """POST and PUT of a member."""

    kind = GW_MEMBER
    member: MemberInput


class RouteSpecInput(GWRouteSpec):
    """A route: `http`, `tcp`, `grpc`, `tls` or `udp`."""

    client_ref: ClientObjectRef

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if len(self.types) != 1:
            raise ValueError("give exactly one of http, tcp, grpc, tls and udp")
        return self


class RouteInput(Input):
    """A route."""

    spec: RouteSpecInput


class RouteBody(Body):
    """POST and PUT of a route."""

    kind = GW_ROUTE
    route: RouteInput


def _check_address(where: str, text: str, family: str = "") -> None:
    try:
        # Of a slice that is replaced most were looked at before.
        address = usable(text) or tunnel_address(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if family and f"IPv{address.version}" != family:
        raise ValueError(f"{where}: {text!r} is an IPv{address.version} address in a slice of type {family}")


class EndpointInput(Endpoint):
    """An endpoint, and the client's node that it is on."""

    node_name: ClientName | None = None


class SliceSpecInput(GWEndpointSliceSpec):
    """An EndpointSlice of a client's Service."""

    client_ref: ClientObjectRef
    parent_ref: ClientObjectRef
    endpoints: Annotated[tuple[EndpointInput, ...], ENDPOINTS] = ()
    node_addresses: Annotated[dict[ClientName, AnyAddress], NODE_ADDRESSES] = {}

    @model_validator(mode="after")
    def _addresses_can_be_reached(self) -> Self:
        for node, address in self.node_addresses.items():
            _check_address(f"nodeAddresses.{node}", str(address))
        for i, endpoint in enumerate(self.endpoints):
            for text in endpoint.addresses:
                _check_address(f"endpoints.{i}.addresses", text, self.address_type)
        return self


class SliceInput(Input):
    """An EndpointSlice."""

    spec: SliceSpecInput


class SliceBody(Body):
    """POST and PUT of an EndpointSlice."""

    kind = GW_ENDPOINT_SLICE
    slice: SliceInput


class AccountInput(Input):
    """An account."""

    spec: AccountSpec = AccountSpec()


class AccountBody(Body):
    """POST and PUT of an account."""

    kind = ACCOUNT
    account: AccountInput


class GroupInput(Input):
    """A gateway template."""

    spec: LBServiceGroupSpec


class GroupBody(Body):
    """POST and PUT of a gateway template."""

    kind = LB_SERVICE_GROUP
    group: GroupInput


class PrefixInput(Input):
    """A pool of public addresses."""

    spec: ServicePrefixSpec


class PrefixBody(Body):
    """POST and PUT of a pool of public addresses."""

    kind = SERVICE_PREFIX
    service_prefix: Annotated[PrefixInput, Field(alias="service-prefix")]


class NodeInput(Input):
    """An EPIC node."""

    spec: NodeSpec

    @field_validator("spec")
    @classmethod
    def _address_can_be_reached(cls, spec: NodeSpec) -> NodeSpec:
        _check_address("address", str(spec.address))
        return spec

    @field_validator("spec")
    @classmethod
    def _unheard_ok_is_of_one_drain(cls, spec: NodeSpec) -> NodeSpec:
        asked = of_one_drain(spec.model_dump(include={"drain", "unheard_ok"}, exclude_unset=True))
        return spec.model_copy(update=asked)


def of_one_drain(asked: dict[str, Any]) -> dict[str, Any]:
    """What is asked of a node; what is said of one drain is not said of the next."""
    if "drain" not in asked:
        return asked
    return {**asked, "unheard_ok": asked["drain"] and asked.get("unheard_ok", False)}


class NodeBody(Body):
    """PUT of an EPIC node."""

    kind = NODE
    node: NodeInput


class MaintenanceInput(Asked, Kebab):
    """What a node is to do; what is not given stays."""

    schedulable: bool = True
    drain: bool = False
    unheard_ok: bool = False


class MaintenanceBody(Asked, Body):
    """PUT of a node's maintenance."""

    maintenance: MaintenanceInput


class UserInput(Asked):
    """A user; the password is kept only as a hash.

    Who exists keeps what is not given: the password, and the clusters that he speaks for (none: all).
    """

    name: ObjectName
    password: Annotated[SecretStr, Field(min_length=8, max_length=256)] | None = None
    cluster_ids: ClusterIDs | None = Field(default=None, alias="clusterIDs")


class UserBody(Asked, Body):
    """POST of a user."""

    user: UserInput
