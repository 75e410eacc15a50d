"""Reconcilers: work for one key at a time, from what is to what is wanted, each failing alone."""
