# SPDX-License-Identifier: Apache-2.0
"""The commands of epicctl, a module a subject."""
