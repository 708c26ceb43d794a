"""Watching directories over RPC, as a stream or by polling."""

from collections.abc import Mapping

from headrace.adapters.e2b.envd.rpc import Method

METHODS: Mapping[str, Method] = {}
