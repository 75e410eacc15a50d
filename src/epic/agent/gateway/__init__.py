"""The gateway role: an EPIC node."""
