"""What both roles run on: tasks, threads, files, systemd, metrics."""
