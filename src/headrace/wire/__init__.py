"""Framings that several dialects share; no I/O."""
