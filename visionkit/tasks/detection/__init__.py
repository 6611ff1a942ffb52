"""Detection: boxes with classes, and masks."""
