"""Requests exactly as they come: one module for each surface."""
