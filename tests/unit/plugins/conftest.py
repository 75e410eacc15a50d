# SPDX-License-Identifier: Apache-2.0
"""Makes the checkout importable as the collection, as Ansible does it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "collections"))
