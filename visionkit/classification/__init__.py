"""The classification room: one label, or several, for a whole image."""
