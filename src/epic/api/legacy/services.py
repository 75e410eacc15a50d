# SPDX-License-Identifier: Apache-2.0
"""Services of type LoadBalancer, and the clusters that serve them: /accounts/{a}/services."""

from __future__ import annotations

from functools import partial
from secrets import token_hex
from typing import Annotated, Any
from urllib.parse import quote_plus, unquote_plus

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from epic.api.access.clusters import refuse_cluster
from epic.api.access.parsed_aside import described, given
from epic.api.account.existence import check_account
from epic.api.context import Asking, Context, Ctx
from epic.api.gateway.gateways import GatewaySettings, find_group, refuse_if_deleting
from epic.api.gateway.names import DNSNames, with_names
from epic.api.legacy.balancers import create_balancer, delete_endpoints, new_balancer, remove_balancer
from epic.api.legacy.requests import ClusterBody, ServiceBody, ServiceInput
from epic.api.pages import Paging, listed
from epic.api.precondition import IfMatch, Precondition
from epic.api.replies import PREFIX, Duplicate, deleted, found, shown
from epic.api.unreadable import discard_unreadable
from epic.errors import AlreadyExists, Conflict, NotFound
from epic.kinds.registry import LOAD_BALANCER
from epic.kinds.validation import refuse_invalid
from epic.lifecycle.balancers import balancer_conditions
from epic.model.balancers import LoadBalancer, LoadBalancerSpec, RemoteEndpoint
from epic.model.resources import GWProxy

router = APIRouter(tags=["services"])
_Given = Annotated[ServiceBody, Depends(given(ServiceBody))]
_BODY = described(ServiceBody)
_AT_ONCE = 80
"""Endpoints that are deleted in one transaction: all others who write wait for that long."""
_FROM_GATEWAY = {"public_address", "alt_address", "endpoints", "gue_tunnel_endpoints"}


def service_path(account: str, name: str = "") -> str:
    """Of a Service, or of all of an account."""
    return f"{PREFIX}/{LOAD_BALANCER.path(account, name)}"


def _show(ctx: Context, balancer: LoadBalancer) -> dict[str, Any]:
    """A Service with what its gateway has got, and its conditions."""
    proxy = ctx.store.find_readable(GWProxy, balancer.account, balancer.name)
    wire = shown(balancer)
    if proxy is not None:
        wire["spec"] |= proxy.spec.model_dump(
            mode="json", by_alias=True, exclude_none=True, include=_FROM_GATEWAY
        )
    return {**wire, "status": {"conditions": [c.wire() for c in balancer_conditions(balancer, proxy)]}}


def _body(ctx: Context, balancer: LoadBalancer) -> dict[str, Any]:
    path = service_path(balancer.account, balancer.name)
    link = {
        "self": path,
        "group": f"{PREFIX}/accounts/{balancer.account}/groups/{balancer.spec.group}",
        "create-endpoint": f"{path}/endpoints",
        "create-cluster": f"{path}/clusters",
    }
    return {"link": link, "service": _show(ctx, balancer)}


@router.post("/accounts/{account}/groups/{group}/services", status_code=302, openapi_extra=_BODY)
def create(ctx: Ctx, account: str, group: str, body: _Given) -> Response:
    """Announce a Service; a gateway with a TCP listener for each of its ports serves it."""
    balancer = with_names(partial(_create, ctx, account, group, body.service, token_hex(8)))
    return found(service_path(account, balancer.name), _body(ctx, balancer), body.unknown)


def _create(
    ctx: Context, account: str, group: str, wanted: ServiceInput, distinct: str, names: DNSNames
) -> LoadBalancer:
    with ctx.current.transaction() as (transaction, world):
        template = find_group(transaction, account, group)
        spec = LoadBalancerSpec(**vars(wanted.spec))
        new = new_balancer(template, wanted.metadata.name, spec, distinct)
        name = new.balancer.name
        if transaction.exists(LoadBalancer, account, name):
            raise Duplicate(f"service {name!r} exists already", service_path(account, name))
        proxy = transaction.find(GWProxy, account, name)
        if proxy is not None:
            refuse_if_deleting(proxy)
            raise AlreadyExists(f"a gateway {name!r} exists already; give the Service another name")
        settings = GatewaySettings.of(ctx)
        return create_balancer(transaction, world, template, new, settings, names)


@router.get("/accounts/{account}/services")
def list_all(ctx: Ctx, account: str, page: Paging) -> Response:
    """All Services of the account."""
    check_account(ctx.store, account)
    return listed(service_path(account), ctx.store.list(LoadBalancer, account), page, partial(_show, ctx))


@router.get("/accounts/{account}/services/{name}")
def read(ctx: Ctx, account: str, name: str) -> Response:
    """A Service."""
    return JSONResponse(_body(ctx, ctx.store.get(LoadBalancer, account, name)))


@router.delete("/accounts/{account}/services/{name}")
def delete(ctx: Ctx, asking: Asking, account: str, name: str, if_match: IfMatch) -> dict[str, str]:
    """Delete a Service that no cluster serves any more."""
    if not if_match.is_given and discard_unreadable(ctx, LoadBalancer, account, name, asking):
        return deleted()
    with ctx.current.transaction() as (transaction, world):
        balancer = transaction.find(LoadBalancer, account, name)
        if_match.check(balancer)
        if balancer is not None:
            if clusters := ", ".join(balancer.spec.upstream_clusters):
                raise Conflict(f"service {name!r} has upstream clusters ({clusters}); delete them first")
            remove_balancer(transaction, world, account, name)
    return deleted()


async def _cluster(request: Request) -> str:
    """The cluster in the path, escaped as in a query: it may be of any letters."""
    raw: bytes = request.scope["raw_path"]
    return unquote_plus(raw.decode("ascii").partition("/clusters/")[2])


_Cluster = Annotated[str, Depends(_cluster)]


def _cluster_path(account: str, name: str, cluster: str) -> str:
    return f"{service_path(account, name)}/clusters/{quote_plus(cluster)}"


def _cluster_body(account: str, name: str, cluster: str) -> dict[str, Any]:
    return {"link": {"self": _cluster_path(account, name, cluster), "service": service_path(account, name)}}


@router.post("/accounts/{account}/services/{name}/clusters", status_code=302)
def create_cluster(
    ctx: Ctx, asking: Asking, account: str, name: str, body: ClusterBody, if_match: IfMatch
) -> Response:
    """Announce a cluster that is to serve the Service."""
    cluster = body.cluster_id
    refuse_cluster(asking, cluster, "what is to serve the Service")
    path = _cluster_path(account, name, cluster)
    with ctx.store.transaction() as transaction:
        balancer = transaction.get(LoadBalancer, account, name)
        if_match.check(balancer)
        if cluster in balancer.spec.upstream_clusters:
            raise Duplicate(f"service {name!r} has the cluster {cluster!r} already", path)
        changed = _with_clusters(balancer, (*balancer.spec.upstream_clusters, cluster))
        refuse_invalid(LOAD_BALANCER, changed, "service")
        transaction.update(changed)
    return found(path, _cluster_body(account, name, cluster))


@router.get("/accounts/{account}/services/{name}/clusters/{_:path}")
def read_cluster(ctx: Ctx, account: str, name: str, cluster: _Cluster) -> dict[str, Any]:
    """A cluster that serves the Service."""
    if cluster not in ctx.store.get(LoadBalancer, account, name).spec.upstream_clusters:
        raise NotFound(f"service {name!r} has no cluster {cluster!r}")
    return _cluster_body(account, name, cluster)


@router.delete("/accounts/{account}/services/{name}/clusters/{_:path}")
def delete_cluster(
    ctx: Ctx, asking: Asking, account: str, name: str, cluster: _Cluster, if_match: IfMatch
) -> dict[str, str]:
    """Take a cluster away from the Service, with its endpoints; `If-Match` is of the Service."""
    refuse_cluster(asking, cluster, "what serves the Service")
    while _delete_some(ctx, account, name, cluster, if_match):
        pass
    return deleted()


def _delete_some(ctx: Context, account: str, name: str, cluster: str, if_match: Precondition) -> bool:
    """Delete some endpoints of the cluster, and it with the last; returns whether there is more to do."""
    with ctx.current.transaction() as (transaction, world):
        balancer = transaction.find(LoadBalancer, account, name)
        if_match.check(balancer)
        if balancer is None or cluster not in balancer.spec.upstream_clusters:
            return False
        endpoints = transaction.by(RemoteEndpoint, "cluster", (account, name, cluster))
        some = [endpoint.name for endpoint in endpoints[:_AT_ONCE]]
        delete_endpoints(transaction, world, account, name, some)
        if len(endpoints) > len(some):
            return True
        left = tuple(other for other in balancer.spec.upstream_clusters if other != cluster)
        transaction.update(_with_clusters(balancer, left))
    return False


def _with_clusters(balancer: LoadBalancer, clusters: tuple[str, ...]) -> LoadBalancer:
    spec = balancer.spec.model_copy(update={"upstream_clusters": clusters})
    return balancer.model_copy(update={"spec": spec})
