"""The tasks. None imports another."""
