# SPDX-License-Identifier: Apache-2.0
"""How tunnels are: what their ends said last, who drops what, and rotating their keys."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Depends, Response
from pydantic_core import to_json

from epic.api.account.existence import check_account
from epic.api.context import Asking, Context, Ctx, admin_only
from epic.api.tunnel.rotating import advance, both_ends
from epic.api.views import show_second_chance, show_tunnel
from epic.ipam.networks import inside6
from epic.live import Heard, Live, Place, epic_place, holds, workload_place
from epic.model.base import now
from epic.model.resources import Node, Tunnel
from epic.model.values.naming import GatewayId
from epic.rotation import Policy, Step, is_rotating, waits_for

router = APIRouter(tags=["tunnels"])
DEAD_SECONDS = 16.0
"""Three hellos without an answer."""


@router.get("/accounts/{account}/tunnels/status")
def of_account(ctx: Ctx, asking: Asking, account: str) -> Response:
    """How the account's tunnels are, what its nodes drop, and its gateways' second chances."""
    check_account(ctx.store, account)
    tunnels = [tunnel for tunnel in ctx.store.list(Tunnel, account) if not tunnel.deleting]
    reply = _reply(ctx, tunnels, {workload_place(tunnel) for tunnel in tunnels})
    return _written(
        {
            **reply,
            "items": [show_tunnel(item, asking) for item in reply["items"]],
            "second-chances": [show_second_chance(c, asking) for c in second_chances(ctx.live, account)],
        }
    )


@router.get("/tunnels", dependencies=[Depends(admin_only)])
def of_all(ctx: Ctx) -> Response:
    """How all tunnels are, what all nodes drop, and all gateways' second chances."""
    tunnels = [tunnel for tunnel in ctx.store.list(Tunnel) if not tunnel.deleting]
    places = {place for tunnel in tunnels for place in (epic_place(tunnel), workload_place(tunnel))}
    reply = _reply(ctx, tunnels, places | {Place("", "", node.name) for node in ctx.store.list(Node)})
    return _written({**reply, "second-chances": second_chances(ctx.live)})


def _written(content: dict[str, Any]) -> Response:
    """The reply, written in the handler's thread: there may be thousands of tunnels."""
    return Response(to_json(content, inf_nan_mode="null"), media_type="application/json")


@router.post("/tunnels/rotate", dependencies=[Depends(admin_only)])
def rotate(ctx: Ctx) -> dict[str, Any]:
    """Give every tunnel a new key now.

    `waiting` are tunnels an end of which is not known to have the present keys: it must report first.
    """
    done = advance(ctx.store, ctx.live, Policy(period=timedelta(0)), {Step.BEGIN})
    tunnels = [tunnel for tunnel in ctx.store.list(Tunnel) if not tunnel.deleting]
    blocked = {t.name for t in tunnels if waits_for(t.spec, both_ends(ctx.live, t))}
    return {
        "started": done[Step.BEGIN],
        "under-way": sum(is_rotating(t.spec) for t in tunnels) - done[Step.BEGIN],
        "waiting": sorted(int(t.name) for t in tunnels if t.name in blocked and not is_rotating(t.spec)),
    }


@router.get("/nodes/{name}/drops", dependencies=[Depends(admin_only)])
def of_node(ctx: Ctx, name: str) -> dict[str, Any]:
    """What an EPIC node drops, by reason; `age` is absent while it has not reported."""
    ctx.store.get(Node, "", name)
    drops = _drops(ctx, [Place("", "", name)])
    return drops[0] if drops else {"node": name, "drops": {}}


def _reply(ctx: Context, tunnels: Iterable[Tunnel], places: Iterable[Place]) -> dict[str, Any]:
    time = now()
    ordered = sorted(tunnels, key=lambda tunnel: int(tunnel.name))
    return {
        "items": [
            status(tunnel, *ctx.live.ends(tunnel), time)
            | {"inside-address6": str(inside6(ctx.pools.inside6, tunnel.spec.inside_address))}
            for tunnel in ordered
        ],
        "nodes": _drops(ctx, places),
    }


def _drops(ctx: Context, places: Iterable[Place]) -> list[dict[str, Any]]:
    return [
        {
            **({"account": place.account, "cluster": place.cluster} if place.account else {}),
            "node": place.node,
            "age": round(age, 1),
            "drops": {reason: count for reason, count in sorted(drops.items()) if count},
        }
        for place, (drops, age) in ctx.live.drops(set(places)).items()
    ]


def second_chances(live: Live, account: str = "") -> list[dict[str, Any]]:
    """What became of each gateway's packets on each EPIC node, of one account or all."""
    return [
        {
            "gateway": gateway,
            "epic-node": node,
            "age": round(age, 1),
            "hits": chance.hits,
            "passed-on": chance.passed_on,
            "learned": chance.learned,
            "chain-ends": chance.chain_ends,
            "over-budget": chance.over_budget,
        }
        for gateway, node, chance, age in live.second_chances()
        if not account or gateway.startswith(f"{account}.")
    ]


def status(tunnel: Tunnel, epic: Heard | None, workload: Heard | None, time: datetime) -> dict[str, Any]:
    """A tunnel as its ends describe it; what is not known is absent."""
    spec = tunnel.spec
    found: dict[str, Any] = {
        "id": int(tunnel.name),
        "account": tunnel.account,
        "gateway": str(GatewayId(tunnel.account, spec.proxy)),
        "epic-node": spec.epic_node,
        "cluster": spec.cluster_id,
        "node": spec.node_name,
        "inside-address": str(spec.inside_address),
        "declared-address": str(spec.node_address),
        "state": _state(epic, workload),
        "key": _key(tunnel, epic, workload, time),
    }
    if epic is not None and epic.end.observed is not None:
        address, port = epic.end.observed
        found |= {
            "observed-address": address,
            "observed-port": port,
            "nat": address != str(spec.node_address),
        }
    for name, heard in (("epic-end", epic), ("workload-end", workload)):
        if heard is not None:
            found[name] = _end(heard)
    return found


def _state(epic: Heard | None, workload: Heard | None) -> str:
    """`up` when the end that can be asked heard the other lately."""
    heard = [end for end in (epic, workload) if end is not None and end.fresh]
    if not heard:
        return "unknown"
    lives = [end.end.hello_age is not None and end.end.hello_age <= DEAD_SECONDS for end in heard]
    return "up" if all(lives) else "down"


def _key(tunnel: Tunnel, epic: Heard | None, workload: Heard | None, time: datetime) -> dict[str, Any]:
    found: dict[str, Any] = {
        "epoch": tunnel.spec.signing_epoch,
        "epochs": sorted(key.epoch for key in tunnel.spec.keys),
        "age": max(0, int((time - tunnel.spec.signing_since).total_seconds())),
    }
    waiting = waits_for(tunnel.spec, [holds(epic), holds(workload)])
    if waiting:
        ends = (tunnel.spec.epic_node, f"{tunnel.spec.cluster_id}/{tunnel.spec.node_name}")
        found["waits-for"] = [end for end, late in zip(ends, waiting, strict=True) if late]
    return found


def _end(heard: Heard) -> dict[str, Any]:
    end = heard.end
    found: dict[str, Any] = {
        "age": round(heard.age, 1),
        "rx-packets": end.rx_packets,
        "rx-bytes": end.rx_bytes,
        "tx-packets": end.tx_packets,
        "tx-bytes": end.tx_bytes,
        "epochs": sorted(end.holds.epochs),
        "signing-epoch": end.holds.signing,
    }
    if end.hello_age is not None:
        found["hello-age"] = round(end.hello_age + heard.age, 1)
    if end.round_trip is not None:
        trip = end.round_trip
        found["round-trip"] = {"last": trip.last, "min": trip.min, "avg": trip.avg}
    if end.loss is not None:
        found["loss"] = end.loss
    return found
