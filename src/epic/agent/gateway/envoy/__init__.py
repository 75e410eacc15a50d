"""This node's Envoys."""
