# SPDX-License-Identifier: Apache-2.0
"""The REST API below /api/epic: the original's paths and JSON, and what administrators need besides."""
