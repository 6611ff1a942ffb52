"""What computes a trained model's outputs fastest: torch itself, compiled code, OpenVINO or ONNX Runtime."""
