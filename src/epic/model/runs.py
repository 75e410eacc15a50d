# SPDX-License-Identifier: Apache-2.0
"""A playbook run: what it is to do, and how it goes."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from epic.model.base import Kebab, Resource


class NodeResult(Kebab):
    """What a run did on one node; `errors` are those of single instances, by gateway id."""

    state: Literal["ok", "changed", "failed", "unreachable"]
    task: str = ""
    message: str = ""
    errors: dict[str, str] = {}


class RunSpec(Kebab):
    """What a run is to do; `cancel`: it is not to go on."""

    playbook: Literal["gateways"] = "gateways"
    nodes: tuple[str, ...]
    cancel: bool = False


class RunStatus(Kebab):
    """How a run goes. `not_before` is set on a retry, whose `attempt` counts from 1."""

    state: Literal["queued", "running", "succeeded", "failed", "canceled"] = "queued"
    not_before: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None
    attempt: int = 0
    nodes: dict[str, NodeResult] = {}
    message: str = ""


class Run(Resource):
    """A playbook run; its name is its id."""

    kind: ClassVar[str] = "Run"
    spec: RunSpec
    status: RunStatus = RunStatus()
