"""The workload role: a node of a client."""
