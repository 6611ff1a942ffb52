"""The readers of classification, each usable by itself as a torch ``Dataset``, and how to find their splits."""

from __future__ import annotations

from visionkit.classification.drawn import ShapesClassification
from visionkit.classification.folder import FolderDataset
from visionkit.classification.manifest import ManifestDataset
from visionkit.classification.reader import ClassDataset, Entry
from visionkit.classification.splits import Splits, find_splits

__all__ = ["ClassDataset", "Entry", "FolderDataset", "ManifestDataset", "ShapesClassification", "Splits", "find_splits"]
