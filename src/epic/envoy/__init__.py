"""From the routing model and templates to native Envoy resources, checked and with a revision."""
