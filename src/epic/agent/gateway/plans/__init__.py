# SPDX-License-Identifier: Apache-2.0
"""What must be done in the kernel, and what it refused."""
