"""Data in: from files and labels to batches."""
