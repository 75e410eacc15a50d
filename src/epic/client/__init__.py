# SPDX-License-Identifier: Apache-2.0
"""A client of EPIC's REST API."""

from epic.client.rest import PREFIX, EpicClient
from epic.client.watch import Watch

__all__ = ["PREFIX", "EpicClient", "Watch"]
