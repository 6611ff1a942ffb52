"""Numerics that networks are made of."""
