# SPDX-License-Identifier: Apache-2.0
"""Clients' Gateways that share one gateway on EPIC."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from epic.model.base import ClientRef, Kebab, Resource
from epic.model.gatewayapi import GatewaySpec
from epic.model.resources import PublicPorts
from epic.model.values.naming import ObjectName


class GWMemberSpec(Kebab):
    """What one client's Gateway asks of the gateway whose name is `sharing_key`.

    EPIC fills in `group`, and `joined`: of two members who has the lower number came first.
    """

    client_ref: Annotated[ClientRef, Field(alias="clientRef")] = ClientRef()
    sharing_key: ObjectName
    display_name: str = ""
    public_ports: PublicPorts = ()
    gateway: GatewaySpec | None = None
    group: str = ""
    joined: int = 0


class GWMember(Resource):
    """A cluster's share in a gateway; its name is the UID of the client's Gateway."""

    kind: ClassVar[str] = "GWMember"
    spec: GWMemberSpec
