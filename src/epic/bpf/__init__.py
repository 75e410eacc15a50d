# SPDX-License-Identifier: Apache-2.0
"""The tunnel programs in the kernel: loading, attaching and their maps."""
