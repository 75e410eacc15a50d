"""Routes and EndpointSlices of an account. Writing one changes tunnels, and never needs a run."""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import APIRouter, Response

from epic.api.bodies import RouteBody, SliceBody
from epic.api.context import Context, Ctx
from epic.api.replies import PREFIX, Duplicate, deleted, found, listed, shown
from epic.api.tunnelling import gateways_of_services, replan
from epic.errors import Invalid
from epic.model.base import Metadata
from epic.model.resources import Account, GWEndpointSlice, GWEndpointSliceSpec, GWRoute, GWRouteSpec
from epic.store.interface import Transaction
from epic.tunnels import route_parents

router = APIRouter()
_Owned = TypeVar("_Owned", GWRoute, GWEndpointSlice)
_COLLECTIONS: dict[type[GWRoute] | type[GWEndpointSlice], str] = {
    GWRoute: "routes",
    GWEndpointSlice: "slices",
}


@router.post("/accounts/{account}/routes", status_code=302, tags=["routes"])
def create_route(ctx: Ctx, account: str, body: RouteBody) -> Response:
    """Create a route; its name is the client route's UID."""
    return _create(ctx, _route(account, body))


@router.get("/accounts/{account}/routes", tags=["routes"])
def list_routes(ctx: Ctx, account: str) -> dict[str, Any]:
    """All routes of the account."""
    return _list(ctx, GWRoute, account)


@router.get("/accounts/{account}/routes/{name}", tags=["routes"])
def read_route(ctx: Ctx, account: str, name: str) -> dict[str, Any]:
    """A route."""
    return _body(ctx.store.get(GWRoute, account, name))


@router.put("/accounts/{account}/routes/{name}", status_code=302, tags=["routes"])
def replace_route(ctx: Ctx, account: str, name: str, body: RouteBody) -> Response:
    """Replace a route."""
    return _replace(ctx, name, _route(account, body))


@router.delete("/accounts/{account}/routes/{name}", tags=["routes"])
def delete_route(ctx: Ctx, account: str, name: str) -> dict[str, str]:
    """Delete a route."""
    _delete(ctx, GWRoute, account, name)
    return deleted("route deleted")


@router.post("/accounts/{account}/slices", status_code=302, tags=["slices"])
def create_slice(ctx: Ctx, account: str, body: SliceBody) -> Response:
    """Create an EndpointSlice; its name is the client EndpointSlice's UID."""
    return _create(ctx, _slice(account, body))


@router.get("/accounts/{account}/slices", tags=["slices"])
def list_slices(ctx: Ctx, account: str) -> dict[str, Any]:
    """All EndpointSlices of the account."""
    return _list(ctx, GWEndpointSlice, account)


@router.get("/accounts/{account}/slices/{name}", tags=["slices"])
def read_slice(ctx: Ctx, account: str, name: str) -> dict[str, Any]:
    """An EndpointSlice."""
    return _body(ctx.store.get(GWEndpointSlice, account, name))


@router.put("/accounts/{account}/slices/{name}", status_code=302, tags=["slices"])
def replace_slice(ctx: Ctx, account: str, name: str, body: SliceBody) -> Response:
    """Replace an EndpointSlice."""
    return _replace(ctx, name, _slice(account, body))


@router.delete("/accounts/{account}/slices/{name}", tags=["slices"])
def delete_slice(ctx: Ctx, account: str, name: str) -> dict[str, str]:
    """Delete an EndpointSlice."""
    _delete(ctx, GWEndpointSlice, account, name)
    return deleted()


def _route(account: str, body: RouteBody) -> GWRoute:
    spec = body.route.spec
    return GWRoute(
        metadata=Metadata(name=spec.client_ref.uid, namespace=account, labels=_labels(account)),
        spec=GWRouteSpec(client_ref=spec.client_ref, http=spec.http, tcp=spec.tcp),
    )


def _slice(account: str, body: SliceBody) -> GWEndpointSlice:
    spec = body.slice.spec
    return GWEndpointSlice(
        metadata=Metadata(name=spec.client_ref.uid, namespace=account, labels=_labels(account)),
        spec=GWEndpointSliceSpec.model_validate(spec.wire()),
    )


def _labels(account: str) -> dict[str, str]:
    return {"epic.acnodal.io/owning-account": account}


def _path(obj: GWRoute | GWEndpointSlice) -> str:
    return f"{PREFIX}/accounts/{obj.account}/{_COLLECTIONS[type(obj)]}/{obj.name}"


def _body(obj: GWRoute | GWEndpointSlice) -> dict[str, Any]:
    key = "route" if isinstance(obj, GWRoute) else "slice"
    return {"link": {"self": _path(obj)}, key: shown(obj)}


def _list(ctx: Context, kind: type[_Owned], account: str) -> dict[str, Any]:
    ctx.store.get(Account, "", account)
    return listed(f"{PREFIX}/accounts/{account}/{_COLLECTIONS[kind]}", ctx.store.list(kind, account))


def _create(ctx: Context, obj: _Owned) -> Response:
    with ctx.store.transaction() as transaction:
        transaction.get(Account, "", obj.account)
        if transaction.find(type(obj), obj.account, obj.name) is not None:
            raise Duplicate(f"{obj.kind} {obj.name!r} exists already", _path(obj))
        created = transaction.create(obj)
        replan(transaction, obj.account, _gateways(transaction, obj))
    return found(_path(created), _body(created))


def _replace(ctx: Context, name: str, obj: _Owned) -> Response:
    if obj.name != name:
        raise Invalid(
            f"clientRef.uid: {obj.name!r} is not the name {name!r} in the path, which cannot change"
        )
    with ctx.store.transaction() as transaction:
        stored = transaction.get(type(obj), obj.account, name)
        updated = transaction.update(stored.model_copy(update={"spec": obj.spec}))
        if updated.metadata.resource_version != stored.metadata.resource_version:
            affected = _gateways(transaction, stored) | _gateways(transaction, updated)
            replan(transaction, obj.account, affected)
    return found(_path(updated), _body(updated))


def _delete(ctx: Context, kind: type[_Owned], account: str, name: str) -> None:
    with ctx.store.transaction() as transaction:
        stored = transaction.find(kind, account, name)
        if stored is not None:
            affected = _gateways(transaction, stored)
            transaction.delete(kind, account, name)
            replan(transaction, account, affected)


def _gateways(transaction: Transaction, obj: GWRoute | GWEndpointSlice) -> set[str]:
    if isinstance(obj, GWRoute):
        return route_parents(obj)
    return gateways_of_services(transaction, obj.account, {obj.spec.parent_ref.uid})
