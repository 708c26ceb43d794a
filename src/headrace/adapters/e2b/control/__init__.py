"""The control plane: sandboxes from outside."""
