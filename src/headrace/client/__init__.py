"""The SDK; works without the server's packages."""
