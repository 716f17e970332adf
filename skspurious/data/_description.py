"""What fit saw of X, so that any other X is read in the same way, or refused."""

from dataclasses import dataclass

import numpy as np
import torch

from skspurious.data._samples import DatasetSamples, TensorSamples, as_samples

_CHANNELS = (1, 3, 4)  # of pictures
# Resampling overshoots a little; standardised pictures go far beyond this.
_UNIT_RANGE = (-0.5, 1.5)


@dataclass(frozen=True)
class InputDescription:
    """How an X looks, and how another X becomes samples of the same kind.

    Parameters
    ----------
    sample_shape : tuple of int, or None
        Shape of one sample of an array or tensor; None for files, texts and datasets.
    dtype : str or None
        Type of an array's or tensor's samples, such as "uint8".
    scale : {"unit", "own"} or None
        Of pictures: "unit" is uint8 or floats in [0, 1], which are the same pictures; "own" is
        any other. None where it is unknown, or X has no pictures.
    value_range : tuple of two floats, or None
        Smallest and largest value, of pictures of a scale of their own.
    """

    sample_shape: tuple | None = None
    dtype: str | None = None
    scale: str | None = None
    value_range: tuple | None = None

    @classmethod
    def of(cls, samples):
        """The description of samples, as :func:`read_samples` makes them."""
        if isinstance(samples, DatasetSamples):
            return cls(scale="unit" if samples.are_image_files else None)
        tensor = samples.tensor
        scale = value_range = None
        if _are_pictures(tensor):
            value_range = _value_range(tensor)
            scale = "unit" if value_range[0] >= 0 and value_range[1] <= 1 else "own"
        return cls(samples.sample_shape, _type_name(tensor), scale, value_range)

    def conform(self, samples, *, name, size_matters=True, bytes_matter=False):
        """Other samples, in the form of those that were described.

        Parameters
        ----------
        samples : TensorSamples or DatasetSamples
        name : str
            Class of the estimator, for error messages.
        size_matters : bool, default=True
            False where preprocessing brings pictures of any size to one.
        bytes_matter : bool, default=False
            Whether a transform of the user acts on the pictures: then they become bytes where
            bytes were described, and floats where floats were, whatever they come from.

        Returns
        -------
        samples : TensorSamples or DatasetSamples

        Raises
        ------
        ValueError
            If shapes differ, or the scale of pictures is another one that is not known.
        """
        if isinstance(samples, DatasetSamples):
            if samples.are_image_files and self.scale == "own":
                raise ValueError(self._unknown_scale(name, "image files, of values 0 to 255"))
            if bytes_matter and self._has_floats and samples.are_image_files:
                files = samples.dataset.with_transform(_scale_bytes)
                return DatasetSamples(files, samples.index, are_image_files=True)
            return samples
        tensor = samples.tensor
        self._check_shape(samples.sample_shape, name, size_matters)
        if self.scale is not None and _are_pictures(tensor):
            tensor = self._rescale(tensor, name, bytes_matter)
        elif self.dtype is not None and tensor.ndim == 2:
            tensor = self._retype(tensor)
        return samples if tensor is samples.tensor else TensorSamples(tensor)

    def _check_shape(self, shape, name, size_matters):
        expected = self.sample_shape
        if expected is None or shape == expected:
            return
        if not size_matters and len(shape) == len(expected) == 3 and shape[0] == expected[0]:
            return
        raise ValueError(
            f"X has samples of shape {shape}, but {name} was fitted on samples of shape {expected}."
        )

    @property
    def _has_floats(self):
        return self.dtype is not None and getattr(torch, self.dtype).is_floating_point

    def _retype(self, tensor):
        """Whole numbers, such as those of tokens, or floats: a table as it was described."""
        if tensor.is_floating_point() == self._has_floats:
            return tensor
        return tensor.float() if self._has_floats else tensor.to(getattr(torch, self.dtype))

    def _rescale(self, tensor, name, bytes_matter):
        """Pictures on the scale that was described."""
        low, high = _value_range(tensor)
        if self.scale == "own":
            if tensor.dtype == torch.uint8:
                raise ValueError(self._unknown_scale(name, "of type uint8"))
            return tensor
        if low < _UNIT_RANGE[0] or high > _UNIT_RANGE[1]:
            raise ValueError(
                f"X has pictures with values from {low:g} to {high:g}, but {name} was fitted on "
                "pictures of type uint8 or with values in [0, 1]. Pass them as uint8, or divide "
                "them by their largest possible value."
            )
        are_bytes, were_bytes = tensor.dtype == torch.uint8, self.dtype in ("uint8", None)
        if were_bytes and not are_bytes and bytes_matter:
            return tensor.mul(255).round().clamp(0, 255).to(torch.uint8)
        return _scale_bytes(tensor) if are_bytes and not were_bytes else tensor

    def _unknown_scale(self, name, what):
        low, high = self.value_range
        return (
            f"X has pictures {what}, but {name} was fitted on pictures with values from {low:g} "
            f"to {high:g}, a scale that is not known. Convert X as the training pictures were."
        )


def read_samples(X, *, collate_fn=None, image_transform=None, is_linear=False, has_own_scale=False):
    """Any X as samples, as :class:`InputDescription` takes them.

    Whole numbers from 0 to 255 in the shape of pictures become uint8, unless pictures have a
    scale of their own. A 2-D tensor of bytes becomes float32, as an array does: it is no picture;
    for a linear head (``is_linear``), one of any numbers.
    """
    samples = as_samples(X, collate_fn=collate_fn, image_transform=image_transform)
    if isinstance(samples, DatasetSamples):
        return samples
    tensor = samples.tensor
    is_table = tensor.ndim == 2 and (is_linear or tensor.dtype == torch.uint8)
    if is_table and not tensor.is_floating_point():
        return TensorSamples(tensor.float())
    if has_own_scale:
        return samples
    is_whole = not tensor.is_floating_point() and tensor.dtype != torch.bool
    if isinstance(X, np.ndarray):  # whose whole numbers are floats by now
        is_whole = X.dtype.kind in "iu"
    if is_whole and tensor.dtype != torch.uint8 and _has_picture_shape(tensor) and len(tensor):
        low, high = tensor.min().item(), tensor.max().item()
        if low >= 0 and high <= 255:
            return TensorSamples(tensor.to(torch.uint8))
    return samples


def _scale_bytes(pictures):
    """uint8 pictures as floats in [0, 1]."""
    return pictures.float().div_(255)


def _type_name(tensor):
    return str(tensor.dtype).removeprefix("torch.")


def _has_picture_shape(tensor):
    return tensor.ndim == 4 and tensor.shape[1] in _CHANNELS


def _are_pictures(tensor):
    is_number = tensor.is_floating_point() or tensor.dtype == torch.uint8
    return _has_picture_shape(tensor) and is_number and tensor.numel() > 0


def _value_range(tensor):
    """Smallest and largest value; uint8 pictures are on the unit scale."""
    if tensor.dtype == torch.uint8:
        return (0.0, 1.0)
    return (tensor.min().item(), tensor.max().item())
