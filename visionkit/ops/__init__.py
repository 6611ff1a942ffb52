"""Numerical and machine-level helpers."""
