# SPDX-License-Identifier: Apache-2.0
"""What is left to do of an account's tunnels: a large change is carried out in parts."""

from __future__ import annotations

from typing import ClassVar

from epic.model.base import Kebab, Resource


class TunnelBacklogSpec(Kebab):
    """The names of gateways whose tunnels are not at their plan yet, those that wait longest first."""

    gateways: tuple[str, ...]


class TunnelBacklog(Resource):
    """The backlog of an account, which is its name; there is none when nothing is left to do."""

    kind: ClassVar[str] = "TunnelBacklog"
    spec: TunnelBacklogSpec
