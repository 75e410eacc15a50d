"""The tunnel programs on a host: loading, attaching, maps, and the wire format of control packets."""
