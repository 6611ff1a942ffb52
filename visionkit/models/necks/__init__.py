"""Necks: feature maps in, feature maps out."""
