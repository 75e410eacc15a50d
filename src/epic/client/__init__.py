# SPDX-License-Identifier: Apache-2.0
"""A client of EPIC's REST API."""

from epic.client.rest import PREFIX, Denied, EpicClient
from epic.client.watch import Watch

__all__ = ["PREFIX", "Denied", "EpicClient", "Watch"]
