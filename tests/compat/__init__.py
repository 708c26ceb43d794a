"""Unmodified SDKs of vendors, each in an environment of its own, against the real service."""
