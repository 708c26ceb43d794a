"""Everything that runs in processes that end up inside a sandbox.

Standard library only; the Python kernel also uses IPython. Nothing here imports `headrace`.
"""
