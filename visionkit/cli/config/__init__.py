"""Configs, help and messages of a command line."""
