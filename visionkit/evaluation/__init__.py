"""How good a model is on labelled pictures: numbers with intervals, kept in a folder, and compared."""
