"""From Gateway API objects to the routing model and the status of listeners and routes. Pure."""
