"""What answers on port 49983 of a sandbox: processes and files."""
