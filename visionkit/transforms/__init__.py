"""Reading, preprocessing and augmenting images."""
