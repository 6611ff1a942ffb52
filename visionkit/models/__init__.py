"""The network: backbone, neck, head, weights, checkpoints. Plain PyTorch."""
