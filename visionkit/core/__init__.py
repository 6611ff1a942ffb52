"""What everything stands on: errors, samples, plain-data components, files, seeds, the machine."""
