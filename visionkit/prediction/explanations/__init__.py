"""Explanations of predictions: maps, how well they are borne out, drawings, files."""
