# SPDX-License-Identifier: Apache-2.0
"""Keys that authenticate packets between nodes."""

from __future__ import annotations

from pydantic import SecretStr, field_serializer

from epic.model.base import Kebab


class EpochKey(Kebab):
    """The key of one epoch, as 32 hexadecimal digits."""

    epoch: int
    secret: SecretStr

    @field_serializer("secret", when_used="json")
    def _reveal(self, secret: SecretStr) -> str:
        return secret.get_secret_value()
