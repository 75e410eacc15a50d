# SPDX-License-Identifier: Apache-2.0
"""What nodes of both roles exchange with the control plane."""
