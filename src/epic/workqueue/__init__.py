# SPDX-License-Identifier: Apache-2.0
"""Keyed work queues as client-go has them, and the runner that gives each reconciler its own.

`queue` is pure but for its clock: the lives of gateways and their siblings take their work from it, in
turns of a thread. `runner` works on the keys of a queue in an event loop: it is for reconcilers over the
async store, each of which fails alone.
"""
