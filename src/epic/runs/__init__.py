"""Runs: what needs Ansible is queued, executed one by one, reported, and repeated until it succeeds."""
