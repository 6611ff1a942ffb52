"""visionkit: one shared backbone for classification, detection and segmentation."""

from __future__ import annotations

import importlib
import os
from typing import Any

__version__ = "0.1.0"

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the package index at import; never here

PUBLIC: dict[str, str] = {
    "Backbone": "visionkit.models.backbones.base",
    "FeatureSpec": "visionkit.models.backbones.base",
    "ResNet": "visionkit.models.backbones.resnet",
    "TimmBackbone": "visionkit.models.backbones.timm",
    "load_weights": "visionkit.models.weights.load",
    "WeightsReport": "visionkit.models.weights.load",
    "WeightsFile": "visionkit.models.weights.file",
    "read_weights": "visionkit.models.weights.file",
    "inspect_weights": "visionkit.models.backbones.inspect",
    "export_backbone": "visionkit.models.backbone_file",
    "Neck": "visionkit.models.necks.base",
    "IdentityNeck": "visionkit.models.necks.identity",
    "FPN": "visionkit.models.necks.fpn",
    "Head": "visionkit.models.head",
    "VisionModel": "visionkit.models.model",
    "Recipe": "visionkit.training.recipe",
    "load": "visionkit.prediction.trained",
    "save": "visionkit.models.checkpoint",
    "predict_files": "visionkit.prediction.files",
    "FilePrediction": "visionkit.prediction.files",
    "explain": "visionkit.prediction.explain",
    "Explanation": "visionkit.prediction.explain",
    "convert": "visionkit.prediction.backends.convert",
    "ImageInfo": "visionkit.core.sample",
    "Sample": "visionkit.core.sample",
    "Batch": "visionkit.core.sample",
    "Target": "visionkit.core.sample",
    "SpatialTarget": "visionkit.core.sample",
    "Prediction": "visionkit.core.prediction",
    "collate": "visionkit.core.sample",
    "ObjectMasks": "visionkit.data.labels.masks",
    "Preprocessing": "visionkit.data.transforms.preprocessing",
    "to_original": "visionkit.data.transforms.preprocessing",
    "to_model": "visionkit.data.transforms.preprocessing",
    "read_image": "visionkit.data.images.reading",
    "Augmentation": "visionkit.data.transforms.augmentation",
    "MixUpCutMix": "visionkit.data.transforms.mix",
    "Mosaic": "visionkit.data.transforms.mosaic",
    "MultiScale": "visionkit.data.transforms.scale",
    "RandomScaledCrop": "visionkit.data.transforms.crop",
    "Views": "visionkit.prediction.views",
    "Predictor": "visionkit.prediction.predictor",
    "TaskMetric": "visionkit.training.metric",
    "Task": "visionkit.training.task",
    "DataSplits": "visionkit.data.dataset",
    "VisionDataset": "visionkit.data.dataset",
    "VisionDataModule": "visionkit.training.datamodule",
    "ClassTarget": "visionkit.tasks.classification.types",
    "ClassPrediction": "visionkit.tasks.classification.types",
    "LinearHead": "visionkit.tasks.classification.heads",
    "MLPHead": "visionkit.tasks.classification.heads",
    "ClassificationMetric": "visionkit.tasks.classification.metric",
    "ClassificationData": "visionkit.tasks.classification.data",
    "FolderDataset": "visionkit.tasks.classification.readers.folder",
    "ManifestDataset": "visionkit.tasks.classification.readers.manifest",
    "ShapesClassification": "visionkit.tasks.classification.readers.shapes",
    "Classifier": "visionkit.tasks.classification.task",
    "BoxTarget": "visionkit.tasks.detection.types",
    "BoxPrediction": "visionkit.tasks.detection.types",
    "FCOSHead": "visionkit.tasks.detection.heads.fcos",
    "FasterRCNNHead": "visionkit.tasks.detection.heads.faster_rcnn",
    "MultiTask": "visionkit.tasks.multitask.task",
    "MultiTaskData": "visionkit.tasks.multitask.data",
    "MultiTaskDataset": "visionkit.tasks.multitask.dataset",
    "MultiTaskHead": "visionkit.tasks.multitask.head",
    "MultiTaskMetric": "visionkit.tasks.multitask.metric",
    "MultiTaskNeck": "visionkit.tasks.multitask.neck",
    "MultiTaskPrediction": "visionkit.tasks.multitask.types",
    "MultiTaskTarget": "visionkit.tasks.multitask.types",
    "join_heads": "visionkit.tasks.multitask.take_join",
    "take_head": "visionkit.tasks.multitask.take_join",
    "MaskRCNNHead": "visionkit.tasks.detection.heads.mask_rcnn",
    "InstancePrediction": "visionkit.tasks.detection.instances",
    "DetectionMetric": "visionkit.tasks.detection.metrics.metric",
    "DetectionData": "visionkit.tasks.detection.data",
    "CocoDataset": "visionkit.tasks.detection.readers.coco",
    "VocDataset": "visionkit.tasks.detection.readers.voc",
    "YoloDataset": "visionkit.tasks.detection.readers.yolo",
    "ShapesDetection": "visionkit.tasks.detection.readers.shapes",
    "Detector": "visionkit.tasks.detection.task",
    "MaskTarget": "visionkit.tasks.segmentation.types",
    "MaskPrediction": "visionkit.tasks.segmentation.types",
    "DeepLabV3PlusHead": "visionkit.tasks.segmentation.heads.deeplab",
    "FPNSegmentationHead": "visionkit.tasks.segmentation.heads.fpn",
    "FCNHead": "visionkit.tasks.segmentation.heads.base",
    "SegmentationMetric": "visionkit.tasks.segmentation.metrics.metric",
    "SegmentationData": "visionkit.tasks.segmentation.data",
    "MaskDataset": "visionkit.tasks.segmentation.readers.reader",
    "MaskFolderDataset": "visionkit.tasks.segmentation.readers.reader",
    "ShapesSegmentation": "visionkit.tasks.segmentation.readers.shapes",
    "CocoMaskDataset": "visionkit.tasks.segmentation.readers.coco",
    "Segmenter": "visionkit.tasks.segmentation.task",
    "DataError": "visionkit.core.errors",
    "UsageError": "visionkit.core.errors",
    "VisionkitError": "visionkit.core.errors",
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
