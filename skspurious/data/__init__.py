"""Samples, their groups, and the adapters that turn any X into indexable samples."""

from skspurious.data._grouped import GroupedData, unpack_groups
from skspurious.data._groups import encode_groups, make_sample_group
from skspurious.data._overlapping import OverlappingGroups
from skspurious.data._samples import DatasetSamples, ImagePaths, TensorSamples, as_samples
from skspurious.data._sources import infer_groups, resolve_groups

__all__ = [
    "DatasetSamples",
    "GroupedData",
    "ImagePaths",
    "OverlappingGroups",
    "TensorSamples",
    "as_samples",
    "encode_groups",
    "infer_groups",
    "make_sample_group",
    "resolve_groups",
    "unpack_groups",
]
