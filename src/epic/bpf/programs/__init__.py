# SPDX-License-Identifier: Apache-2.0
"""Loading the programs, and attaching them."""
