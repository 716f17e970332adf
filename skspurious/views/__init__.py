"""Views of the samples that leave the object out: what predicts the label there is a shortcut."""

from skspurious.views._images import (
    Grayscale,
    KeepCenter,
    LowPass,
    MaskCenter,
    ShufflePatches,
)
from skspurious.views._patches import PatchFeatures
from skspurious.views._standard import standard_views
from skspurious.views._statistics import ImageStatistics
from skspurious.views._text_statistics import TextStatistics
from skspurious.views._texts import KeepWords, SelectFields, ShuffleWords

__all__ = [
    "Grayscale",
    "ImageStatistics",
    "KeepCenter",
    "KeepWords",
    "LowPass",
    "MaskCenter",
    "PatchFeatures",
    "SelectFields",
    "ShufflePatches",
    "ShuffleWords",
    "TextStatistics",
    "standard_views",
]
