"""Readers of images with classes."""
