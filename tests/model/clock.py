# SPDX-License-Identifier: Apache-2.0
"""A time that passes only when it is told to."""

from __future__ import annotations

from datetime import datetime, timedelta

from epic.model import base


class Clock:
    """One time for the store's objects and for what is measured."""

    def __init__(self) -> None:
        self.time = base.now()

    def __call__(self) -> datetime:
        return self.time

    def seconds(self) -> float:
        return self.time.timestamp()

    def pass_(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
