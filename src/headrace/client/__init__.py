"""The Python SDK: sandboxes of a running service, or of a private one, from Python programs.

Users import from `headrace`. `_shared` is everything without I/O; `_async` is written by hand and
`_sync` is generated from it.
"""
