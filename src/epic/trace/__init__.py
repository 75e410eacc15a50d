"""epic-trace: packets followed through the tunnel's programs."""
