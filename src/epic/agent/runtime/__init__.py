# SPDX-License-Identifier: Apache-2.0
"""What both roles run on: tasks, threads, files, systemd, metrics."""
