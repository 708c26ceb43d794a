"""Our own dialect: the HTTP API below /v1."""
