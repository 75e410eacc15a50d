# SPDX-License-Identifier: Apache-2.0
"""The client's objects as typed data, read from plain documents. Pure."""

from __future__ import annotations

from epic.controller.objects.collection import (
    Objects,
)
from epic.controller.objects.kinds import (
    KINDS,
    ROUTES,
    ClientObject,
    EndpointSlice,
    EpicParameters,
    Gateway,
    GatewayClass,
    GatewayClassConfig,
    HTTPRoute,
    Namespace,
    ReferenceGrant,
    Route,
    Service,
    TCPRoute,
)
from epic.controller.objects.parsing import (
    UNREAD,
    describe,
    explain,
    meant_kind,
    parse,
    parse_document,
    ref_of,
    without_nulls,
)
from epic.controller.objects.refs import (
    CONFIG_GROUP,
    GATEWAY_GROUP,
    NOTHING_UNSEEN,
    Document,
    Problem,
    Ref,
    Unseen,
)

__all__ = [
    "CONFIG_GROUP",
    "GATEWAY_GROUP",
    "KINDS",
    "NOTHING_UNSEEN",
    "ROUTES",
    "UNREAD",
    "ClientObject",
    "Document",
    "EndpointSlice",
    "EpicParameters",
    "Gateway",
    "GatewayClass",
    "GatewayClassConfig",
    "HTTPRoute",
    "Namespace",
    "Objects",
    "Problem",
    "Ref",
    "ReferenceGrant",
    "Route",
    "Service",
    "TCPRoute",
    "Unseen",
    "describe",
    "explain",
    "meant_kind",
    "parse",
    "parse_document",
    "ref_of",
    "without_nulls",
]
