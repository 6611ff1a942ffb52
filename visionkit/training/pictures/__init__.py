"""Pictures of a training: what the network sees, and truth beside prediction."""
