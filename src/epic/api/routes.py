# SPDX-License-Identifier: Apache-2.0
"""Routes and EndpointSlices of an account. Writing one changes tunnels, and never needs a run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi import APIRouter, Response

from epic.api.account_limits import takes_more, within_slice_limits, within_tunnel_limit
from epic.api.bodies import Body, InputMetadata, RouteBody, SliceBody
from epic.api.context import Context, Ctx
from epic.api.metadata import check_version, with_sources
from epic.api.replies import PREFIX, Duplicate, deleted, found, listed, shown
from epic.api.workload_addresses import check_node_addresses
from epic.errors import Invalid
from epic.model.base import Metadata
from epic.model.resources import Account, GWEndpointSlice, GWEndpointSliceSpec, GWRoute, GWRouteSpec
from epic.reconcile.tunnelling import gateways_of_services, replan
from epic.store.interface import Transaction
from epic.tunnels import route_parents, route_services, slice_nodes

_Owned = TypeVar("_Owned", GWRoute, GWEndpointSlice)
_Given = TypeVar("_Given", bound=Body)


@dataclass(frozen=True)
class _Collection(Generic[_Owned, _Given]):
    """Objects of one kind at `/accounts/ACCOUNT/name`, named by the UIDs of the client's objects.

    `key` holds the object in requests and replies; `gateways` are those whose tunnels it decides on, `ends`
    what of it decides; `check` raises Invalid for one that must not be written.
    """

    kind: type[_Owned]
    name: str
    key: str
    body: type[_Given]
    made_of: Callable[[str, _Given], _Owned]
    metadata_of: Callable[[_Given], InputMetadata]
    gateways: Callable[[Transaction, _Owned], set[str]]
    ends: Callable[[_Owned], object]
    deleted: str
    check: Callable[[Context, Transaction, _Owned], None] | None = None

    def path(self, account: str, name: str = "") -> str:
        return f"{PREFIX}/accounts/{account}/{self.name}" + (f"/{name}" if name else "")

    def shown(self, obj: _Owned) -> dict[str, Any]:
        return {"link": {"self": self.path(obj.account, obj.name)}, self.key: shown(obj)}

    def list(self, ctx: Context, account: str) -> dict[str, Any]:
        ctx.store.get(Account, "", account)
        return listed(self.path(account), ctx.store.list(self.kind, account))

    def create(self, ctx: Context, given: InputMetadata, obj: _Owned) -> Response:
        path = self.path(obj.account, obj.name)
        with ctx.store.transaction() as transaction:
            transaction.get(Account, "", obj.account)
            if transaction.find(self.kind, obj.account, obj.name) is not None:
                raise Duplicate(f"{obj.kind} {obj.name!r} exists already", path)
            if self.check is not None:
                self.check(ctx, transaction, obj)
            with within_slice_limits(transaction, obj.account):
                created = transaction.create(with_sources(given, obj))
            with within_tunnel_limit(transaction, obj.account):
                replan(transaction, obj.account, self.gateways(transaction, obj))
        return found(path, self.shown(created))

    def replace(self, ctx: Context, name: str, given: InputMetadata, obj: _Owned) -> Response:
        if obj.name != name:
            raise Invalid(
                f"clientRef.uid: {obj.name!r} is not the name {name!r} in the path, which cannot change"
            )
        with ctx.store.transaction() as transaction:
            stored = transaction.get(self.kind, obj.account, name)
            check_version(given, stored)
            if self.check is not None:
                self.check(ctx, transaction, obj)
            changed = with_sources(given, stored.model_copy(update={"spec": obj.spec}))
            # Most changes, such as a pod that moves, need other tunnels for nobody, and nothing more.
            more = takes_more(stored, changed)
            with within_slice_limits(transaction, obj.account) if more else nullcontext():
                updated = transaction.update(changed)
            if self.ends(updated) != self.ends(stored):
                affected = self.gateways(transaction, stored) | self.gateways(transaction, updated)
                with within_tunnel_limit(transaction, obj.account):
                    replan(transaction, obj.account, affected)
        return found(self.path(obj.account, name), self.shown(updated))

    def delete(self, ctx: Context, account: str, name: str) -> dict[str, str]:
        with ctx.store.transaction() as transaction:
            stored = transaction.find(self.kind, account, name)
            if stored is not None:
                affected = self.gateways(transaction, stored)
                transaction.delete(self.kind, account, name)
                replan(transaction, account, affected)
        return deleted(self.deleted)


def _route(account: str, body: RouteBody) -> GWRoute:
    spec = body.route.spec
    return GWRoute(
        metadata=_metadata(account, spec.client_ref.uid),
        spec=GWRouteSpec(client_ref=spec.client_ref, http=spec.http, tcp=spec.tcp),
    )


def _slice(account: str, body: SliceBody) -> GWEndpointSlice:
    spec = body.slice.spec
    return GWEndpointSlice(
        metadata=_metadata(account, spec.client_ref.uid),
        spec=GWEndpointSliceSpec.model_validate(spec.wire()),
    )


def _metadata(account: str, name: str) -> Metadata:
    return Metadata(name=name, namespace=account, labels={"epic.acnodal.io/owning-account": account})


def _served(collection: _Collection[_Owned, _Given], title: str) -> APIRouter:
    """The requests of a collection; `title` is what the documentation calls one of its objects."""
    router = APIRouter(prefix=f"/accounts/{{account}}/{collection.name}", tags=[collection.name])

    def create(ctx: Ctx, account: str, body: Any) -> Response:
        return collection.create(ctx, collection.metadata_of(body), collection.made_of(account, body))

    def list_all(ctx: Ctx, account: str) -> dict[str, Any]:
        return collection.list(ctx, account)

    def read(ctx: Ctx, account: str, name: str) -> dict[str, Any]:
        return collection.shown(ctx.store.get(collection.kind, account, name))

    def replace(ctx: Ctx, account: str, name: str, body: Any) -> Response:
        return collection.replace(ctx, name, collection.metadata_of(body), collection.made_of(account, body))

    def delete(ctx: Ctx, account: str, name: str) -> dict[str, str]:
        return collection.delete(ctx, account, name)

    for handler in (create, replace):
        # FastAPI reads the body's type from here; a type checker takes no variable for a type.
        handler.__annotations__["body"] = collection.body
    named = f"{title}; its name is the UID of the client's object"
    router.post("", status_code=302, description=f"Create {named}.")(create)
    router.get("", description=f"All {collection.name} of the account.")(list_all)
    router.get("/{name}", description=f"Read {title}.")(read)
    router.put("/{name}", status_code=302, description=f"Replace {title}.")(replace)
    router.delete("/{name}", description=f"Delete {title}.")(delete)
    return router


router = APIRouter()
router.include_router(
    _served(
        _Collection(
            kind=GWRoute,
            name="routes",
            key="route",
            body=RouteBody,
            made_of=_route,
            metadata_of=lambda body: body.route.metadata,
            gateways=lambda _, route: route_parents(route),
            ends=lambda route: (route_parents(route), route_services(route)),
            deleted="route deleted",
        ),
        "a route",
    )
)
router.include_router(
    _served(
        _Collection(
            kind=GWEndpointSlice,
            name="slices",
            key="slice",
            body=SliceBody,
            made_of=_slice,
            metadata_of=lambda body: body.slice.metadata,
            gateways=lambda transaction, piece: gateways_of_services(
                transaction, piece.account, {piece.spec.parent_ref.uid}
            ),
            ends=slice_nodes,
            deleted="delete successful",
            check=check_node_addresses,
        ),
        "an EndpointSlice",
    )
)
