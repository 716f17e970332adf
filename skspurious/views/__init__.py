"""Views of the samples that leave the object out: what predicts the label there is a shortcut."""

from skspurious.views._images import (
    Grayscale,
    KeepCenter,
    LowPass,
    MaskCenter,
    ShufflePatches,
)
from skspurious.views._statistics import ImageStatistics
from skspurious.views._texts import KeepWords, SelectFields, ShuffleWords

__all__ = [
    "Grayscale",
    "ImageStatistics",
    "KeepCenter",
    "KeepWords",
    "LowPass",
    "MaskCenter",
    "SelectFields",
    "ShufflePatches",
    "ShuffleWords",
]
