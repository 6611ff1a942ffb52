"""How detections are judged."""
