"""The reverse proxy into sandboxes: HTTP and WebSocket to a port that a guest listens on."""
