"""The check of a data set: what it looks at, what it says, and the repaired copy."""
