"""Processes and terminals over RPC."""

from collections.abc import Mapping

from headrace.adapters.e2b.envd.rpc import Method

METHODS: Mapping[str, Method] = {}
