# SPDX-License-Identifier: Apache-2.0
"""The tunnel's packets as bytes."""
