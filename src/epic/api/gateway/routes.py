# SPDX-License-Identifier: Apache-2.0
"""Routes and EndpointSlices of an account. Writing one changes tunnels, and never needs a run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse

from epic.api.access.clusters import (
    refuse_another_cluster,
    refuse_cluster,
    refuse_sources,
    refuse_unknown_owner,
)
from epic.api.access.parsed_aside import described, given
from epic.api.account.account_limits import (
    takes_more,
    within_bytes_limit,
    within_slice_limits,
    within_tunnel_limit,
)
from epic.api.account.existence import check_account
from epic.api.bodies import Body, InputMetadata, RouteBody, SliceBody
from epic.api.context import Asking, Context, Ctx, Principal
from epic.api.gateway.attached import create_attached, delete_attached, refuse_if_of_balancer
from epic.api.gateway.workload_addresses import check_node_addresses
from epic.api.metadata import check_version, with_sources
from epic.api.pages import Page, Paging, listed
from epic.api.precondition import IfMatch, Precondition
from epic.api.replies import PREFIX, Duplicate, deleted, found, shown
from epic.api.unreadable import discard_unreadable, to_replace
from epic.api.views import show_route
from epic.errors import Invalid
from epic.kinds.kind import Kind
from epic.kinds.registry import GW_ENDPOINT_SLICE, GW_ROUTE
from epic.kinds.strategy import OWN_PREFIX, prepare_for_create, prepare_for_update
from epic.kinds.validation import refuse_invalid
from epic.model.base import ClientRef, Metadata, now
from epic.model.resources import Account, GWEndpointSlice, GWEndpointSliceSpec, GWRoute, GWRouteSpec
from epic.reconcile.tunnels.tunnel_room import within_room_for_endpoints
from epic.reconcile.tunnels.tunnelling import replan
from epic.reconcile.world import World
from epic.store.interface import Transaction
from epic.tunnels import route_parents, route_services, slice_nodes

_Owned = TypeVar("_Owned", GWRoute, GWEndpointSlice)
_Given = TypeVar("_Given", bound=Body)


@dataclass(frozen=True)
class _Collection(Generic[_Owned, _Given]):
    """Objects of one kind at `/accounts/ACCOUNT/COLLECTION`, named by the UIDs of the client's objects.

    `gateways` are those whose tunnels an object decides on, `ends` what of it decides; `check` raises Invalid
    for one that must not be written. `admitted_as` is what of an object its sources have judged.
    """

    kind: Kind[_Owned]
    body: type[_Given]
    made_of: Callable[[str, _Given], _Owned]
    metadata_of: Callable[[_Given], InputMetadata]
    gateways: Callable[[World, _Owned], set[str]]
    ends: Callable[[_Owned], object]
    deleted: str
    check: Callable[[Context, Transaction, _Owned], None] | None = None
    admitted_as: Callable[[_Owned], object] = lambda _: None
    show: Callable[[Context, _Owned], dict[str, Any]] = lambda _, obj: shown(obj)

    def path(self, account: str, name: str = "") -> str:
        return f"{PREFIX}/{self.kind.path(account, name)}"

    def shown(self, ctx: Context, obj: _Owned) -> dict[str, Any]:
        return {
            "link": {"self": self.path(obj.account, obj.name)},
            self.kind.in_rest.key: self.show(ctx, obj),
        }

    def read(self, ctx: Context, account: str, name: str) -> dict[str, Any]:
        return self.shown(ctx, ctx.store.get(self.kind.model, account, name))

    def list(self, ctx: Context, account: str, page: Page) -> Response:
        check_account(ctx.store, account)
        return listed(self.path(account), ctx.store.list(self.kind.model, account), page)

    def create(self, ctx: Context, asking: Principal, account: str, body: _Given) -> Response:
        given, obj = self.metadata_of(body), self.made_of(account, body)
        path = self.path(obj.account, obj.name)
        refuse_invalid(self.kind, obj, self.kind.in_rest.key)
        _refuse_other_clusters(asking, obj)
        refuse_sources(asking, given.annotations, None)
        with ctx.current.transaction() as (transaction, world):
            if to_replace(transaction, self.kind.model, obj.account, obj.name) is not None:
                raise Duplicate(f"{obj.kind} {obj.name!r} exists already", path)
            created = self._add(ctx, transaction, world, with_sources(given, obj))
        return found(path, self.shown(ctx, created), body.unknown)

    def _add(self, ctx: Context, transaction: Transaction, world: World, obj: _Owned) -> _Owned:
        obj = _owned(prepare_for_create(self.kind, obj, now()))
        transaction.get(Account, "", obj.account)
        if self.check is not None:
            self.check(ctx, transaction, obj)
        (created,) = create_attached(
            transaction, world, obj.account, [obj], lambda: self.gateways(world, obj)
        )
        return created

    def replace(
        self, ctx: Context, asking: Principal, account: str, name: str, body: _Given, if_match: Precondition
    ) -> Response:
        given, obj = self.metadata_of(body), self.made_of(account, body)
        if obj.name != name:
            raise Invalid(
                f"clientRef.uid: {obj.name!r} is not the name {name!r} in the path, which cannot change"
            )
        refuse_invalid(self.kind, obj, self.kind.in_rest.key)
        _refuse_other_clusters(asking, obj)
        with ctx.current.transaction() as (transaction, world):
            is_there = transaction.exists(self.kind.model, obj.account, name)
            stored = to_replace(transaction, self.kind.model, obj.account, name)
            if_match.check(stored)
            if stored is None and is_there:
                refuse_unknown_owner(asking, f"{obj.kind} {name!r}")
                updated = self._add(ctx, transaction, world, with_sources(given, obj))
            else:
                stored = transaction.get(self.kind.model, obj.account, name)
                _refuse_other_clusters(asking, stored)
                refuse_sources(asking, given.annotations, stored)
                updated = self._change(ctx, transaction, world, stored, given, obj)
        return found(self.path(obj.account, name), self.shown(ctx, updated), body.unknown)

    def _change(
        self,
        ctx: Context,
        transaction: Transaction,
        world: World,
        stored: _Owned,
        given: InputMetadata,
        obj: _Owned,
    ) -> _Owned:
        refuse_if_of_balancer(stored)
        refuse_another_cluster(obj.spec.client_ref, stored.spec.client_ref, f"{obj.kind} {obj.name!r}")
        check_version(given, stored)
        if self.check is not None:
            self.check(ctx, transaction, obj)
        keeps = self.admitted_as(obj) == self.admitted_as(stored)
        wanted = with_sources(given, stored.model_copy(update={"spec": obj.spec}), keeps=keeps)
        changed = prepare_for_update(self.kind, wanted, stored)
        # Most changes, such as a pod that moves, need other tunnels for nobody, and nothing more.
        more = takes_more(stored, changed)
        moves = self.ends(changed) != self.ends(stored)
        with within_tunnel_limit(transaction, world, obj.account) if moves else nullcontext():
            before = self.gateways(world, stored)
            with (
                within_slice_limits(transaction, world, obj.account) if more else nullcontext(),
                within_bytes_limit(transaction, world, obj.account),
                within_room_for_endpoints(world, obj.account),
            ):
                updated = world.note(transaction.update(changed))
            if moves:
                replan(transaction, world, obj.account, before | self.gateways(world, updated))
        return updated

    def delete(
        self, ctx: Context, asking: Principal, account: str, name: str, if_match: Precondition
    ) -> dict[str, str]:
        if not if_match.is_given and discard_unreadable(ctx, self.kind.model, account, name, asking):
            return deleted(self.deleted)
        with ctx.current.transaction() as (transaction, world):
            stored = transaction.find(self.kind.model, account, name)
            if_match.check(stored)
            if stored is not None:
                refuse_if_of_balancer(stored)
                _refuse_other_clusters(asking, stored)
                delete_attached(transaction, world, account, [stored], self.gateways(world, stored))
        return deleted(self.deleted)


def _refuse_other_clusters(asking: Principal, obj: GWRoute | GWEndpointSlice) -> None:
    refuse_cluster(asking, obj.spec.client_ref.cluster_id, f"{obj.kind} {obj.name!r}")


def _route(account: str, body: RouteBody) -> GWRoute:
    spec = body.route.spec
    return GWRoute(
        metadata=Metadata(name=spec.client_ref.uid, namespace=account),
        spec=GWRouteSpec(
            client_ref=ClientRef(**vars(spec.client_ref)),
            http=spec.http,
            tcp=spec.tcp,
            grpc=spec.grpc,
            tls=spec.tls,
            udp=spec.udp,
        ),
    )


def _admitted_as(route: GWRoute) -> object:
    """Where it comes from and which listeners it is for, by which its client's Gateways were asked."""
    client = route.spec.client_ref
    return client.cluster_id, client.namespace, client.name, route.spec.parent_refs


def _slice(account: str, body: SliceBody) -> GWEndpointSlice:
    spec = body.slice.spec
    return GWEndpointSlice(
        metadata=Metadata(name=spec.client_ref.uid, namespace=account),
        spec=GWEndpointSliceSpec.model_validate(spec.wire()),
    )


def _owned(obj: _Owned) -> _Owned:
    labels = {**obj.metadata.labels, f"{OWN_PREFIX}owning-account": obj.account}
    return obj.model_copy(update={"metadata": obj.metadata.model_copy(update={"labels": labels})})


def _served(collection: _Collection[_Owned, _Given], title: str) -> APIRouter:
    """The requests of a collection; `title` is what the documentation calls one of its objects."""
    name = collection.kind.in_rest.collection
    router = APIRouter(prefix=f"/accounts/{{account}}/{name}", tags=[name])

    def create(ctx: Ctx, asking: Asking, account: str, body: Any) -> Response:
        return collection.create(ctx, asking, account, body)

    def list_all(ctx: Ctx, account: str, page: Paging) -> Response:
        return collection.list(ctx, account, page)

    def read(ctx: Ctx, account: str, name: str) -> Response:
        return JSONResponse(collection.read(ctx, account, name))

    def replace(ctx: Ctx, asking: Asking, account: str, name: str, body: Any, if_match: IfMatch) -> Response:
        return collection.replace(ctx, asking, account, name, body, if_match)

    def delete(ctx: Ctx, asking: Asking, account: str, name: str, if_match: IfMatch) -> dict[str, str]:
        return collection.delete(ctx, asking, account, name, if_match)

    for handler in (create, replace):
        # FastAPI reads from here where the body comes from; a type checker takes no variable for a type.
        handler.__annotations__["body"] = Annotated[collection.body, Depends(given(collection.body))]
    named = f"{title}; its name is the UID of the client's object"
    body = described(collection.body)
    router.post("", status_code=302, description=f"Create {named}.", openapi_extra=body)(create)
    router.get("", description=f"All {name} of the account.")(list_all)
    router.get("/{name}", description=f"Read {title}.")(read)
    router.put("/{name}", status_code=302, description=f"Replace {title}.", openapi_extra=body)(replace)
    router.delete("/{name}", description=f"Delete {title}.")(delete)
    return router


router = APIRouter()
router.include_router(
    _served(
        _Collection(
            kind=GW_ROUTE,
            body=RouteBody,
            made_of=_route,
            metadata_of=lambda body: body.route.metadata,
            gateways=lambda _, route: route_parents(route),
            ends=lambda route: (route_parents(route), route_services(route)),
            deleted="route deleted",
            admitted_as=_admitted_as,
            show=show_route,
        ),
        "a route",
    )
)
router.include_router(
    _served(
        _Collection(
            kind=GW_ENDPOINT_SLICE,
            body=SliceBody,
            made_of=_slice,
            metadata_of=lambda body: body.slice.metadata,
            gateways=lambda world, piece: world.backends.gateways(piece.account, piece.spec.parent_ref.uid),
            ends=slice_nodes,
            deleted="delete successful",
            check=check_node_addresses,
        ),
        "an EndpointSlice",
    )
)
