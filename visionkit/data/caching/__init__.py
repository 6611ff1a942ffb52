"""Decoded pictures, kept."""
