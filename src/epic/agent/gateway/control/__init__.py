# SPDX-License-Identifier: Apache-2.0
"""What is exchanged with the control plane."""
