# SPDX-License-Identifier: Apache-2.0
"""Where clusters serve Services: /accounts/{a}/services/{s}/endpoints, and all at /accounts/{a}/endpoints."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse

from epic.api.access.clusters import refuse_cluster
from epic.api.access.parsed_aside import described, given
from epic.api.account.existence import check_account
from epic.api.context import Asking, Context, Ctx
from epic.api.gateway.workload_addresses import check_node_addresses
from epic.api.legacy.balancers import create_endpoint, delete_endpoints, new_endpoint
from epic.api.legacy.requests import EndpointBody
from epic.api.legacy.services import service_path
from epic.api.pages import Paging, listed
from epic.api.precondition import IfMatch
from epic.api.replies import PREFIX, Duplicate, deleted, found, shown
from epic.api.unreadable import discard_unreadable
from epic.errors import NotFound
from epic.kinds.registry import REMOTE_ENDPOINT
from epic.lifecycle.balancers import endpoint_condition, slice_of
from epic.model.balancers import LoadBalancer, RemoteEndpoint
from epic.model.resources import GWEndpointSlice

router = APIRouter(tags=["services"])
_Given = Annotated[EndpointBody, Depends(given(EndpointBody))]
_BODY = described(EndpointBody)
_DELETED = "endpoint deleted"


def _path(endpoint: RemoteEndpoint) -> str:
    service = service_path(endpoint.account, endpoint.spec.load_balancer)
    return f"{service}/endpoints/{endpoint.name}"


def _show(ctx: Context, endpoint: RemoteEndpoint) -> dict[str, Any]:
    """An endpoint, and whether it is served."""
    balancer = ctx.store.find_readable(LoadBalancer, endpoint.account, endpoint.spec.load_balancer)
    has_slice = ctx.store.find_readable(GWEndpointSlice, endpoint.account, endpoint.name) is not None
    condition = endpoint_condition(endpoint, balancer, has_slice=has_slice)
    return {**shown(endpoint), "status": {"conditions": [_judged_now(condition.wire())]}}


def _judged_now(condition: dict[str, Any]) -> dict[str, Any]:
    # It is not stored: nobody knows since when it is so.
    return {name: value for name, value in condition.items() if name != "lastTransitionTime"}


def _body(ctx: Context, endpoint: RemoteEndpoint) -> dict[str, Any]:
    service = service_path(endpoint.account, endpoint.spec.load_balancer)
    return {"link": {"self": _path(endpoint), "service": service}, "endpoint": _show(ctx, endpoint)}


@router.post("/accounts/{account}/services/{service}/endpoints", status_code=302, openapi_extra=_BODY)
def create(ctx: Ctx, asking: Asking, account: str, service: str, body: _Given) -> Response:
    """Announce an endpoint of one of the Service's clusters."""
    refuse_cluster(asking, body.endpoint.spec.cluster, "the endpoint")
    with ctx.current.transaction() as (transaction, world):
        balancer = transaction.get(LoadBalancer, account, service)
        endpoint = new_endpoint(balancer, body.endpoint.spec)
        stored = transaction.find_readable(RemoteEndpoint, account, endpoint.name)
        if stored is not None:
            message = f"duplicate endpoint: {endpoint.name}"
            raise Duplicate(message, _path(stored), {"endpoint": _show(ctx, stored)})
        piece = slice_of(endpoint, balancer)
        check_node_addresses(ctx, transaction, piece, "endpoint.spec.node-address")
        endpoint = create_endpoint(transaction, world, endpoint, piece)
    return found(_path(endpoint), _body(ctx, endpoint), body.unknown)


@router.get("/accounts/{account}/services/{service}/endpoints/{name}")
def read(ctx: Ctx, account: str, service: str, name: str) -> Response:
    """An endpoint of the Service."""
    endpoint = ctx.store.get(RemoteEndpoint, account, name)
    if endpoint.spec.load_balancer != service:
        raise NotFound(f"service {service!r} has no endpoint {name!r}")
    return JSONResponse(_body(ctx, endpoint))


@router.delete("/accounts/{account}/services/{service}/endpoints/{name}")
def delete(
    ctx: Ctx, asking: Asking, account: str, service: str, name: str, if_match: IfMatch
) -> dict[str, str]:
    """Delete an endpoint of the Service."""
    if not if_match.is_given and discard_unreadable(ctx, RemoteEndpoint, account, name, asking):
        return deleted(_DELETED)
    with ctx.current.transaction() as (transaction, world):
        endpoint = transaction.find(RemoteEndpoint, account, name)
        if endpoint is not None and endpoint.spec.load_balancer != service:
            endpoint = None
        if_match.check(endpoint)
        if endpoint is not None:
            refuse_cluster(asking, endpoint.spec.cluster, f"endpoint {name!r}")
            delete_endpoints(transaction, world, account, service, [name])
    return deleted(_DELETED)


@router.get("/accounts/{account}/endpoints")
def list_all(ctx: Ctx, account: str, page: Paging) -> Response:
    """All endpoints of the account's Services."""
    check_account(ctx.store, account)
    path = f"{PREFIX}/{REMOTE_ENDPOINT.path(account)}"
    return listed(path, ctx.store.list(RemoteEndpoint, account), page, partial(_show, ctx))


@router.get("/accounts/{account}/endpoints/{name}")
def read_by_name(ctx: Ctx, account: str, name: str) -> Response:
    """An endpoint, whatever Service it is of."""
    return JSONResponse(_body(ctx, ctx.store.get(RemoteEndpoint, account, name)))
