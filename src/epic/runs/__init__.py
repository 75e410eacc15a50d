# SPDX-License-Identifier: Apache-2.0
"""Runs: what needs Ansible is queued, executed one by one, reported, and repeated until it succeeds."""
