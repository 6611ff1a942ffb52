"""What computes a trained model's outputs fastest."""
