# SPDX-License-Identifier: Apache-2.0
"""Where etcd is, and who we are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_ENDPOINT = r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$"
_THIS_HOST = re.compile(r"(127\.[0-9.]+|localhost|\[::1\]):[0-9]+")


class EtcdSettings(BaseModel):
    """An etcd cluster that is EPIC's own: compaction knows no owners."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # HOST:PORT of the members; the first that answers is used.
    endpoints: Annotated[
        tuple[Annotated[str, Field(pattern=_ENDPOINT)], ...], Field(min_length=1, max_length=16)
    ]
    # What all of the store's keys begin with.
    prefix: Annotated[str, Field(pattern=r"^/[A-Za-z0-9/_.-]{1,100}/$")] = "/epic/"
    # Who signed etcd's certificates; without it the connection is not encrypted.
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key: expected both or none")
        if self.authority is None:
            if self.certificate is not None:
                raise ValueError("authority: expected with a certificate")
            if remote := [e for e in self.endpoints if not _THIS_HOST.fullmatch(e)]:
                raise ValueError(
                    f"authority: expected, since {remote[0]} is not on this host: the store holds secrets"
                )
        return self
