# SPDX-License-Identifier: Apache-2.0
"""What is exchanged with the control planes of the accounts that the manifests name."""
