"""EPIC's resources as typed data: field names on the wire, defaults, validation. No I/O."""
