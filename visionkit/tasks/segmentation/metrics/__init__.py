"""How segmentations are judged."""
