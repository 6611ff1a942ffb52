"""Preprocessing and random changes of images and their targets."""
