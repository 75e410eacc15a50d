# SPDX-License-Identifier: Apache-2.0
"""What is remembered of a public address when its gateway is gone."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from epic.model.base import Kebab, Resource


class ReleaseSpec(Kebab):
    """Which account had the address, empty when that is no more, and when its gateway was gone."""

    account: str
    released: datetime


class ReleasedAddress(Resource):
    """A public address that no gateway has now; its name is the address."""

    kind: ClassVar[str] = "ReleasedAddress"
    spec: ReleaseSpec
