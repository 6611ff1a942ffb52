"""Types of the public API, for editors and type checkers; the names are those of ``PUBLIC``."""

from visionkit.backbones.base import Backbone as Backbone
from visionkit.backbones.base import FeatureSpec as FeatureSpec
from visionkit.backbones.resnet import ResNet as ResNet
from visionkit.backbones.timm import TimmBackbone as TimmBackbone
from visionkit.checkpoint import load as load
from visionkit.checkpoint import save as save
from visionkit.classification.data import ClassificationData as ClassificationData
from visionkit.classification.drawn import ShapesClassification as ShapesClassification
from visionkit.classification.folder import FolderDataset as FolderDataset
from visionkit.classification.heads import LinearHead as LinearHead
from visionkit.classification.heads import MLPHead as MLPHead
from visionkit.classification.manifest import ManifestDataset as ManifestDataset
from visionkit.classification.metric import ClassificationMetric as ClassificationMetric
from visionkit.classification.task import Classifier as Classifier
from visionkit.classification.types import ClassPrediction as ClassPrediction
from visionkit.classification.types import ClassTarget as ClassTarget
from visionkit.datamodule import VisionDataModule as VisionDataModule
from visionkit.dataset import DataSplits as DataSplits
from visionkit.dataset import VisionDataset as VisionDataset
from visionkit.errors import DataError as DataError
from visionkit.errors import UsageError as UsageError
from visionkit.errors import VisionkitError as VisionkitError
from visionkit.head import Head as Head
from visionkit.metric import TaskMetric as TaskMetric
from visionkit.model import VisionModel as VisionModel
from visionkit.necks.base import Neck as Neck
from visionkit.necks.identity import IdentityNeck as IdentityNeck
from visionkit.sample import Batch as Batch
from visionkit.sample import ImageInfo as ImageInfo
from visionkit.sample import Prediction as Prediction
from visionkit.sample import Sample as Sample
from visionkit.sample import Target as Target
from visionkit.sample import collate as collate
from visionkit.task import Task as Task
from visionkit.transforms.augmentation import Augmentation as Augmentation
from visionkit.transforms.images import read_image as read_image
from visionkit.transforms.mix import MixUpCutMix as MixUpCutMix
from visionkit.transforms.preprocessing import Preprocessing as Preprocessing
from visionkit.weights import WeightsReport as WeightsReport
from visionkit.weights import load_weights as load_weights

PUBLIC: dict[str, str]
__version__: str
