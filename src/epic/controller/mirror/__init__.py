# SPDX-License-Identifier: Apache-2.0
"""Keeps EPIC as a source of objects wants it, by what the API answered last."""

from epic.controller.mirror.passes import Mirror, MirrorSettings, Outcome, failures
from epic.controller.mirror.statuses import StatusDirectory

__all__ = ["Mirror", "MirrorSettings", "Outcome", "StatusDirectory", "failures"]
