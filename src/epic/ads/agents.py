# SPDX-License-Identifier: Apache-2.0
"""What agents call besides the stream: reports and the renewal of their certificates."""

from __future__ import annotations

import logging
from typing import Any, Protocol

import grpc

from epic.ads.delta.server import Authorize
from epic.ads.identity.authorization import caller
from epic.ads.identity.issuer import Issuer
from epic.pki.certificates import RequestError
from epic.pki.directory import PkiError
from epic.proto import epic_pb2, epic_pb2_grpc
from epic.workqueue.threads import ThreadPool

log = logging.getLogger(__name__)

_Context = grpc.aio.ServicerContext[Any, Any]
_RENEWALS_AT_ONCE = 2


class Service(Protocol):
    """What the calls are passed on to."""

    @property
    def authorize(self) -> Authorize:
        """Who may speak for a node."""

    @property
    def issuer(self) -> Issuer:
        """Who signs certificates."""

    async def report(self, report: epic_pb2.NodeReport) -> None:
        """Take in what a node says of itself."""


class AgentService(epic_pb2_grpc.AgentServiceServicer):
    """Each call for the node only whose certificate the connection shows."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._renewals = ThreadPool("certificates", _RENEWALS_AT_ONCE)

    async def Report(  # noqa: N802 - the name that gRPC calls
        self, request: epic_pb2.NodeReport, context: _Context
    ) -> epic_pb2.NodeReportReply:
        await self._refuse_others(request.node, context)
        await self._service.report(request)
        return epic_pb2.NodeReportReply()

    async def RenewCertificate(  # noqa: N802 - the name that gRPC calls
        self, request: epic_pb2.RenewCertificateRequest, context: _Context
    ) -> epic_pb2.RenewCertificateReply:
        asks = caller(context)
        node = asks.name if asks is not None else ""
        await self._refuse_others(node, context)
        try:
            reply = await self._renewals.run(self._service.issuer.renew, node, request.request)
        except RequestError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except (PkiError, OSError) as error:
            log.error("the certificate of node %s cannot be renewed: %s", node, error)
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, "the control plane cannot sign; its log says why"
            )
        # Revoked while it was being made, it would outlive the revocation.
        await self._refuse_others(node, context)
        log.info("node %s has a new certificate", node)
        return reply

    async def _refuse_others(self, node: str, context: _Context) -> None:
        refusal = self._service.authorize(node, context)
        if refusal is not None:
            await refusal.abort(context)
