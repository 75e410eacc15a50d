# SPDX-License-Identifier: Apache-2.0
"""Clients' nodes: their certificates, and which of them have stopped reporting: their agent is down."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from epic.api.access.clusters import refuse_cluster
from epic.api.account.existence import check_account
from epic.api.bodies import Body
from epic.api.context import Asking, Ctx, admin_only
from epic.errors import Invalid, Unavailable
from epic.live import Place, workload_place
from epic.model.base import now
from epic.model.resources import Tunnel
from epic.pki.certificates import REQUEST_BYTES, RequestError
from epic.pki.directory import PkiError
from epic.workloads.certification import issuer_certificate, sign
from epic.workloads.identity import WorkloadIdentity

log = logging.getLogger(__name__)

router = APIRouter(tags=["tunnels"])

_Name = Annotated[str, Query(min_length=1, max_length=253)]


class CertificateRequest(Body):
    """POST of a workload node's request for a certificate (PEM, signed with its key)."""

    request: Annotated[str, Field(max_length=REQUEST_BYTES)]


@router.post("/accounts/{account}/workload-nodes/certificates")
async def certify(
    ctx: Ctx, asking: Asking, account: str, cluster: _Name, node: _Name, body: CertificateRequest
) -> dict[str, Any]:
    """A certificate for a node of a client's cluster, and the port that it is served at with it.

    It counts as long as the password that this was asked with, and is renewed at that port.
    """
    check_account(ctx.store, account)
    refuse_cluster(asking, cluster, f"node {node!r}")
    if ctx.enrolment is None:
        raise Unavailable("workload nodes get no certificates here")
    identity = WorkloadIdentity(account, cluster, node, asking.account, asking.name, asking.credential)
    issuer = ctx.enrolment.issuer
    try:
        made = await sign(issuer, identity.uri, body.request.encode())
        authority = await issuer_certificate(issuer)
    except RequestError as error:
        raise Invalid(f"request: {error}") from error
    except (PkiError, OSError) as error:
        log.error("a workload node gets no certificate: %s", error)
        raise Unavailable("the control plane cannot sign; its log says why") from error
    return {
        "certificate": made.certificate.decode(),
        "issuer": authority,
        "authorities": made.authorities.decode(),
        "port": ctx.enrolment.port,
    }


@router.get("/accounts/{account}/workload-nodes")
def of_account(ctx: Ctx, account: str) -> dict[str, Any]:
    """The account's nodes that tunnels lead to; `silent` is for how many seconds nothing was heard of one."""
    check_account(ctx.store, account)
    return _shown(ctx, ctx.store.list(Tunnel, account))


@router.get("/workload-nodes", dependencies=[Depends(admin_only)])
def of_all(ctx: Ctx) -> dict[str, Any]:
    """All accounts' nodes that tunnels lead to."""
    return _shown(ctx, ctx.store.list(Tunnel))


def _shown(ctx: Ctx, tunnels: list[Tunnel]) -> dict[str, Any]:
    found: dict[Place, list[Tunnel]] = {}
    for tunnel in tunnels:
        if not tunnel.deleting:
            found.setdefault(workload_place(tunnel), []).append(tunnel)
    time = now()
    items = []
    for place, own in sorted(found.items()):
        # Reports are kept in memory: silence is not longer than epic-control runs, or the node has tunnels.
        _, silent = ctx.live.applied(place)
        known = (time - min(tunnel.spec.signing_since for tunnel in own)).total_seconds()
        items.append(
            {
                "account": place.account,
                "cluster": place.cluster,
                "node": place.node,
                "tunnels": len(own),
                "silent": round(max(0.0, min(silent, known)), 1),
            }
        )
    return {"items": items}
