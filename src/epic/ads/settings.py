# SPDX-License-Identifier: Apache-2.0
"""What the ADS service is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from epic.ads.identity.issuer import Issuer
from epic.ipam.networks import DEFAULT_POOLS, Pools


@dataclass(frozen=True)
class AdsSettings:
    """Where to listen, with which certificates, which Envoy validates, where accepted revisions are kept."""

    listen: str
    port: int
    certificate: Path
    key: Path
    issuer: Issuer
    envoy_binary: Path
    revisions: Path | None = None
    pools: Pools = DEFAULT_POOLS
