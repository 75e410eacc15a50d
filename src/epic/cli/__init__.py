"""epicctl: the command line of EPIC, over the REST API."""
