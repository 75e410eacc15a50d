"""The kernel's links, addresses, routes and neighbours."""
