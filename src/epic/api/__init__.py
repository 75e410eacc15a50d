"""The REST API below /api/epic: the original's paths and JSON, and what administrators need besides."""
