# SPDX-License-Identifier: Apache-2.0
"""EndpointSlices: whose they are, to which accounts they go, and on which nodes their endpoints are. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epic.controller.classes import CoreSettings, client_ref, object_uid
from epic.controller.desired import EpicConnection, Item
from epic.controller.objects import (
    CONFIG_GROUP,
    EndpointSlice,
    GatewayClassConfig,
    Objects,
    Problem,
    Ref,
    Service,
)
from epic.controller.routes import References
from epic.model.values.addresses import tunnel_address

SERVICE_LABEL = "kubernetes.io/service-name"
CONFIG_ANNOTATION = f"{CONFIG_GROUP}/config"
NODE_ADDRESSES_ANNOTATION = f"{CONFIG_GROUP}/node-addresses"


@dataclass
class SliceResult:
    """What a slice is to be on EPIC. `held`: what is there stays."""

    items: tuple[Item, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    held: bool = False

    def problem(self, slice_: EndpointSlice, reason: str, message: str) -> None:
        """Note what is wrong with a slice."""
        self.problems.append(slice_.problem(reason, message))


@dataclass(frozen=True)
class _Context:
    objects: Objects
    references: References
    connections: Mapping[Ref, EpicConnection]
    settings: CoreSettings
    result: SliceResult


def translate_slice(
    slice_: EndpointSlice,
    objects: Objects,
    references: References,
    connections: Mapping[Ref, EpicConnection],
    settings: CoreSettings,
) -> SliceResult:
    """A slice for every account whose routes refer to its Service."""
    result = SliceResult()
    context = _Context(objects, references, connections, settings, result)
    service = service_of(slice_)
    if service is None:
        result.problem(slice_, "Invalid", f"metadata.labels needs {SERVICE_LABEL}: the Service's name")
    elif slice_.address_type == "FQDN":
        text = "addressType: FQDN is not supported; IPv4 and IPv6 are"
        result.problem(slice_, "UnsupportedValue", text)
    else:
        result.items = tuple(_items(slice_, service, context))
    return result


def service_of(slice_: EndpointSlice) -> Ref | None:
    """The Service that a slice has endpoints of."""
    name = slice_.metadata.labels.get(SERVICE_LABEL, "")
    return Ref(Service.kind, slice_.metadata.namespace, name) if name else None


def _items(slice_: EndpointSlice, service: Ref, context: _Context) -> list[Item]:
    targets = _targets(slice_, service, context)
    if not targets:
        context.result.held = True
        return []
    addresses = _node_addresses(slice_, context)
    endpoints = list(_endpoints(slice_, addresses, context))
    used = {endpoint["nodeName"] for endpoint in endpoints}
    shared = {
        "addressType": slice_.address_type,
        "endpoints": endpoints,
        "ports": _ports(slice_, service, context),
        "nodeAddresses": {node: address for node, address in addresses.items() if node in used},
    }
    found = context.objects.find(Service, service.namespace, service.name)
    items = []
    for connection in targets:
        cluster = connection.cluster
        # Hosts of one cluster may well use the same file name and slice name, each for its own endpoints.
        mine = slice_.ref._replace(name=f"{slice_.metadata.name}@{context.settings.node_name}")
        uid = object_uid(cluster, mine if context.settings.node_name else slice_.ref, slice_.metadata.uid)
        parent = {
            "clusterID": cluster,
            "namespace": service.namespace,
            "name": service.name,
            "uid": object_uid(cluster, service, found.metadata.uid if found else ""),
        }
        spec = {"clientRef": client_ref(cluster, slice_, uid), "parentRef": parent, **shared}
        items.append(Item(connection, "slices", uid, slice_.ref, slice_.source, spec))
    return items


def _targets(slice_: EndpointSlice, service: Ref, context: _Context) -> list[EpicConnection]:
    """Named accounts, else those with routes here, else the namespace's, else the only one."""
    named = _named_config(slice_, service, context.objects)
    if named is not None:
        if named in context.connections:
            return [context.connections[named]]
        context.result.problem(
            slice_, "InvalidParameters", f"annotation {CONFIG_ANNOTATION}: there is no usable {named}"
        )
        return []
    referring = context.references.get(service)
    if referring:
        return sorted(referring, key=lambda c: (c.server, c.account, c.cluster))
    every = list(dict.fromkeys(context.connections.values()))
    if len(every) > 1:
        own = (c for config, c in context.connections.items() if config.namespace == service.namespace)
        every = list(dict.fromkeys(own)) or every
    if len(every) > 1:
        text = (
            f"which account is it for? Name a configuration by annotation {CONFIG_ANNOTATION}: NAMESPACE/NAME"
        )
        context.result.problem(slice_, "InvalidParameters", text)
        return []
    if not every:
        context.result.problem(slice_, "Pending", "there is no usable GatewayClassConfig for it")
    return every


def _named_config(slice_: EndpointSlice, service: Ref, objects: Objects) -> Ref | None:
    found = objects.find(Service, service.namespace, service.name)
    annotations = {**(found.metadata.annotations if found else {}), **slice_.metadata.annotations}
    value = annotations.get(CONFIG_ANNOTATION)
    if value is None:
        return None
    namespace, slash, name = value.rpartition("/")
    return Ref(GatewayClassConfig.kind, namespace if slash else slice_.metadata.namespace, name)


def _node_addresses(slice_: EndpointSlice, context: _Context) -> dict[str, str]:
    settings = context.settings
    found = {settings.node_name: settings.node_address} if settings.node_name else {}
    text = slice_.metadata.annotations.get(NODE_ADDRESSES_ANNOTATION, "")
    for part in filter(None, (part.strip() for part in text.split(","))):
        node, _, address = part.partition("=")
        try:
            found[node.strip()] = str(tunnel_address(address.strip()))
        except ValueError as error:
            text = f"annotation {NODE_ADDRESSES_ANNOTATION}: {part!r}: {error}; write NODE=ADDRESS, …"
            context.result.problem(slice_, "Invalid", text)
    return found


def _endpoints(
    slice_: EndpointSlice, addresses: Mapping[str, str], context: _Context
) -> list[dict[str, Any]]:
    found = []
    for index, (endpoint, content) in enumerate(
        zip(slice_.endpoints, slice_.content.get("endpoints", ()), strict=True)
    ):
        node = endpoint.node_name or context.settings.node_name
        wrong = next(filter(None, (_fault(a, slice_.address_type) for a in endpoint.addresses)), "")
        if wrong:
            context.result.problem(slice_, "Invalid", f"endpoints.{index}.addresses: {wrong}")
        elif node not in addresses:
            text = (
                f"endpoints.{index}.nodeName: the address of node {node!r} is not known; "
                f"give it by annotation {NODE_ADDRESSES_ANNOTATION}: {node or 'NODE'}=ADDRESS"
            )
            context.result.problem(slice_, "Invalid", text)
        else:
            found.append({**content, "nodeName": node})
    return found


def _fault(text: str, family: str) -> str:
    """What is wrong with an endpoint's address in a slice of that type."""
    try:
        address = tunnel_address(text)
    except ValueError as error:
        return str(error)
    return "" if f"IPv{address.version}" == family else f"{text!r} is no {family} address"


def _ports(slice_: EndpointSlice, service: Ref, context: _Context) -> list[dict[str, Any]]:
    """The slice's ports; a hand-written slice may leave them to the Service's target ports.

    Of a Service with several ports each is named by its number there: so EPIC finds that of a backendRef.
    """
    found = context.objects.find(Service, service.namespace, service.name)
    known = found.spec.ports if found else ()
    if not slice_.ports:
        ports = [
            {
                "name": p.name,
                "protocol": p.protocol,
                "port": p.port if p.target_port is None else p.target_port,
            }
            for p in known
            if not isinstance(p.target_port, str)
        ]
    else:
        ports = [port.wire() for port in slice_.ports]
    if not ports:
        text = f"ports: none given, and {service} has no port with a number as targetPort; give ports here"
        context.result.problem(slice_, "Invalid", text)
    numbers = {p.name: str(p.port) for p in known} if len(known) > 1 else {}
    return [{**port, "name": numbers.get(str(port.get("name", "")), port.get("name", ""))} for port in ports]
