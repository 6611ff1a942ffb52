"""Prediction out: applying a model to files, and writing what it says."""
