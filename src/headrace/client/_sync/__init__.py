# Made from the async face by scripts/generate-sync; change that one.
"""One of the two faces of the SDK, see `headrace.client`."""
