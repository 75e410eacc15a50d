"""The cluster's own certificate authority and the keys that its parts identify themselves with."""
