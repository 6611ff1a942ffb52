"""What several benchmarks share: clocks, memory figures, `visionkit fit` in this process."""
