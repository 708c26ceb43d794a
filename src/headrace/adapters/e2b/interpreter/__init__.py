"""What answers on port 49999 of a sandbox: contexts and the execution of code."""
