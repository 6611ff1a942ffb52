"""Training: steps, recipe, loaders, callbacks. Lightning."""
