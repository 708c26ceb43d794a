"""The service: settings, keys, routing, and the one place where concrete classes meet."""
