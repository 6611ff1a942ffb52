"""Several tasks at once: one backbone and one neck under several heads."""
