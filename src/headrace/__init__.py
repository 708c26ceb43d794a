"""Headrace: a self-hosted code interpreter with live, lossless, truthful streams."""

__version__ = "0.1.0.dev0"
