# SPDX-License-Identifier: Apache-2.0
"""ADS of which only the delta protocol is served."""

from __future__ import annotations

from typing import Any

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc


class DeltaServicer(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]
    """Says so to who asks for the other protocol: gRPC writes a traceback into the log for each such call."""

    async def StreamAggregatedResources(self, _: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: N802
        """Refuse the state-of-the-world protocol."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "only DeltaAggregatedResources is served")
