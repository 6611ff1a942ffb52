"""Predictions that lie in files, whoever wrote them: read as those of a model are."""
