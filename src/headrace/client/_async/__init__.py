"""One of the two faces of the SDK, see `headrace.client`."""
