# SPDX-License-Identifier: Apache-2.0
"""The embedded store: one SQLite file on the control plane's own disk, shared by processes of one host."""
