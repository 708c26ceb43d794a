"""Kernels of languages besides Python: a driver in Python, and the interpreter as its child."""
