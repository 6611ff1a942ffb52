"""Pixels from files, decoded once."""
