"""visionkit: one shared backbone for classification, detection and segmentation."""

from __future__ import annotations

import importlib
import os
from typing import Any

__version__ = "0.1.0"

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the package index at import; never here

PUBLIC: dict[str, str] = {
    "Backbone": "visionkit.backbones.base",
    "FeatureSpec": "visionkit.backbones.base",
    "ResNet": "visionkit.backbones.resnet",
    "TimmBackbone": "visionkit.backbones.timm",
    "load_weights": "visionkit.weights",
    "WeightsReport": "visionkit.weights",
    "WeightsFile": "visionkit.weights_file",
    "read_weights": "visionkit.weights_file",
    "inspect_weights": "visionkit.weights_inspect",
    "export_backbone": "visionkit.weights_export",
    "Neck": "visionkit.necks.base",
    "IdentityNeck": "visionkit.necks.identity",
    "FPN": "visionkit.necks.fpn",
    "Head": "visionkit.head",
    "VisionModel": "visionkit.model",
    "Recipe": "visionkit.recipe",
    "load": "visionkit.checkpoint",
    "save": "visionkit.checkpoint",
    "convert": "visionkit.backends.convert",
    "ImageInfo": "visionkit.sample",
    "Sample": "visionkit.sample",
    "Batch": "visionkit.sample",
    "Target": "visionkit.sample",
    "SpatialTarget": "visionkit.sample",
    "Prediction": "visionkit.sample",
    "collate": "visionkit.sample",
    "ObjectMasks": "visionkit.masks",
    "Preprocessing": "visionkit.transforms.preprocessing",
    "to_original": "visionkit.transforms.preprocessing",
    "to_model": "visionkit.transforms.preprocessing",
    "read_image": "visionkit.transforms.images",
    "Augmentation": "visionkit.transforms.augmentation",
    "MixUpCutMix": "visionkit.transforms.mix",
    "Mosaic": "visionkit.transforms.mosaic",
    "MultiScale": "visionkit.transforms.scale",
    "RandomScaledCrop": "visionkit.transforms.crop",
    "Views": "visionkit.views",
    "TaskMetric": "visionkit.metric",
    "Task": "visionkit.task",
    "DataSplits": "visionkit.dataset",
    "VisionDataset": "visionkit.dataset",
    "VisionDataModule": "visionkit.datamodule",
    "ClassTarget": "visionkit.classification.types",
    "ClassPrediction": "visionkit.classification.types",
    "LinearHead": "visionkit.classification.heads",
    "MLPHead": "visionkit.classification.heads",
    "ClassificationMetric": "visionkit.classification.metric",
    "ClassificationData": "visionkit.classification.data",
    "FolderDataset": "visionkit.classification.folder",
    "ManifestDataset": "visionkit.classification.manifest",
    "ShapesClassification": "visionkit.classification.drawn",
    "Classifier": "visionkit.classification.task",
    "BoxTarget": "visionkit.detection.types",
    "BoxPrediction": "visionkit.detection.types",
    "FCOSHead": "visionkit.detection.fcos",
    "FasterRCNNHead": "visionkit.detection.faster_rcnn",
    "MultiTask": "visionkit.multitask.task",
    "MultiTaskData": "visionkit.multitask.data",
    "MultiTaskDataset": "visionkit.multitask.dataset",
    "MultiTaskHead": "visionkit.multitask.head",
    "MultiTaskMetric": "visionkit.multitask.metric",
    "MultiTaskNeck": "visionkit.multitask.neck",
    "MultiTaskPrediction": "visionkit.multitask.types",
    "MultiTaskTarget": "visionkit.multitask.types",
    "join_heads": "visionkit.multitask.surgery",
    "take_head": "visionkit.multitask.surgery",
    "MaskRCNNHead": "visionkit.detection.mask_rcnn",
    "InstancePrediction": "visionkit.detection.instances",
    "DetectionMetric": "visionkit.detection.metric",
    "DetectionData": "visionkit.detection.data",
    "CocoDataset": "visionkit.detection.coco",
    "VocDataset": "visionkit.detection.voc",
    "YoloDataset": "visionkit.detection.yolo",
    "ShapesDetection": "visionkit.detection.drawn",
    "Detector": "visionkit.detection.task",
    "MaskTarget": "visionkit.segmentation.types",
    "MaskPrediction": "visionkit.segmentation.types",
    "DeepLabV3PlusHead": "visionkit.segmentation.deeplab",
    "FPNSegmentationHead": "visionkit.segmentation.fpn_head",
    "FCNHead": "visionkit.segmentation.heads",
    "SegmentationMetric": "visionkit.segmentation.metric",
    "SegmentationData": "visionkit.segmentation.data",
    "MaskDataset": "visionkit.segmentation.reader",
    "MaskFolderDataset": "visionkit.segmentation.reader",
    "ShapesSegmentation": "visionkit.segmentation.drawn",
    "CocoMaskDataset": "visionkit.segmentation.coco",
    "Segmenter": "visionkit.segmentation.task",
    "DataError": "visionkit.errors",
    "UsageError": "visionkit.errors",
    "VisionkitError": "visionkit.errors",
}
"""The public API: name -> module that defines it. Nothing heavy is imported until a name is used."""

__all__ = ["__version__", *PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'visionkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
