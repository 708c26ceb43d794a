"""Sandboxes, contexts, executions and their event logs; knows no HTTP and no dialect."""
