# SPDX-License-Identifier: Apache-2.0
"""Keyed work queues as client-go has them: lives of gateways and lists of siblings are worked on by them."""
