# SPDX-License-Identifier: Apache-2.0
"""Who speaks: the certificates of both ends."""
