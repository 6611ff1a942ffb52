"""Weights from any common file, and a passport of what was loaded."""
