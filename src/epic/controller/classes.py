# SPDX-License-Identifier: Apache-2.0
"""Where a Gateway is made: from its class and that class's configuration to account and template. Pure."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import SecretStr

from epic.controller.desired import EpicConnection
from epic.controller.objects import (
    CONFIG_GROUP,
    ClientObject,
    EpicParameters,
    Gateway,
    GatewayClass,
    GatewayClassConfig,
    Objects,
    Ref,
)
from epic.model.values.naming import CONTROLLER_NAME

_UID_SPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "epic-gateway.org")


@dataclass(frozen=True)
class Login:
    """The user's own server and credentials, used in place of those of class configurations."""

    server: str
    username: str
    password: SecretStr


@dataclass(frozen=True)
class CoreSettings:
    """What the core must know besides the objects.

    `node_name` and `node_address` are those of the Linux host whose files are read; empty elsewhere.
    `fallback` serves Gateways whose class is not among the objects.
    """

    cluster: str
    node_name: str = ""
    node_address: str = ""
    login: Login | None = None
    fallback: EpicParameters | None = None


class Class(NamedTuple):
    """Where the Gateways of a class are made."""

    connection: EpicConnection
    template: str


class ClassFault(NamedTuple):
    """Why a Gateway's class cannot be used."""

    reason: str
    message: str


def class_of(gateway: Gateway, objects: Objects, settings: CoreSettings) -> Class | ClassFault | None:
    """The Gateway's class; None when it is that of another implementation."""
    name = gateway.spec.gateway_class_name
    found = objects.find(GatewayClass, "", name)
    if found is None:
        if settings.fallback is not None:
            return _class(settings.fallback, "the class given", settings)
        classes = ", ".join(c.metadata.name for c in objects.all(GatewayClass)) or "none"
        return ClassFault("Pending", f"there is no GatewayClass {name!r}; there are: {classes}")
    if found.spec.controller_name != CONTROLLER_NAME:
        return None
    ref = found.spec.parameters_ref
    if ref is None or (ref.group, ref.kind) != (CONFIG_GROUP, GatewayClassConfig.kind):
        return ClassFault(
            "InvalidParameters",
            f"GatewayClass {name!r} needs a parametersRef to a GatewayClassConfig of {CONFIG_GROUP}",
        )
    config = objects.find(GatewayClassConfig, ref.namespace, ref.name)
    if config is None:
        return ClassFault(
            "InvalidParameters", f"there is no GatewayClassConfig {ref.namespace}/{ref.name} (class {name!r})"
        )
    return _class(config.spec.epic, str(config.ref), settings)


def class_of_config(config: GatewayClassConfig, settings: CoreSettings) -> Class | ClassFault:
    """The account and template that a configuration names."""
    return _class(config.spec.epic, str(config.ref), settings)


def _class(epic: EpicParameters, what: str, settings: CoreSettings) -> Class | ClassFault:
    cluster = epic.cluster_name or settings.cluster
    if settings.login is not None:
        own = settings.login
        password = own.password.get_secret_value()
        connection = EpicConnection(own.server, epic.user_namespace, own.username, password, cluster)
        return Class(connection, epic.gateway_template)
    needed = {
        "gateway-hostname": epic.gateway_hostname,
        "service-account": epic.service_account,
        "service-key": epic.service_key.get_secret_value(),
    }
    missing = [f"spec.epic.{key}" for key, value in needed.items() if not value]
    if missing:
        return ClassFault("InvalidParameters", f"{what}: {', '.join(missing)} is missing")
    connection = EpicConnection(
        server=f"https://{epic.gateway_hostname}",
        account=epic.user_namespace,
        username=epic.service_account,
        password=needed["service-key"],
        cluster=cluster,
    )
    return Class(connection, epic.gateway_template)


def object_uid(cluster: str, ref: Ref, uid: str = "") -> str:
    """The object's own UID, or the one that files of a cluster have for it on every host."""
    return uid or str(uuid.uuid5(_UID_SPACE, "/".join((cluster, *ref))))


def client_ref(cluster: str, obj: ClientObject, uid: str) -> dict[str, str]:
    """How EPIC knows the client's object."""
    created = obj.metadata.creation_timestamp
    return {
        "clusterID": cluster,
        "namespace": obj.metadata.namespace,
        "name": obj.metadata.name,
        "uid": uid,
        **({"creationTimestamp": created.isoformat()} if created is not None else {}),
    }
