"""Generated protobuf classes of EPIC's own resource types."""
