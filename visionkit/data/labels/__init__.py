"""What several formats of labels share."""
