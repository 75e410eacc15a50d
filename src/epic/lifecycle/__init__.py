"""The life of instances, nodes and tunnels: pure functions from what is known to what comes next."""
