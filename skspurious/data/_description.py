"""What fit saw of X, so that any other X is read in the same way, or refused."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from skspurious.data._pictures import (
    CHANNELS,
    PictureForm,
    as_picture,
    channels_first,
    from_scale,
    resize,
    retype,
    scale_of,
    with_channels,
)
from skspurious.data._samples import DatasetSamples, ImagePaths, TensorSamples, as_samples
from skspurious.utils._random import seeded_draws

# Resampling overshoots a little; standardised pictures go far beyond this.
_UNIT_RANGE = (-0.5, 1.5)


@dataclass(frozen=True)
class Reading:
    """What the parameters of an estimator say about how X is read.

    Parameters
    ----------
    name : str
        Class of the estimator, for error messages.
    argument : str, default="X"
        What the user calls X.
    collate_fn : callable, default=None
        Makes a batch from a list of samples; texts need one.
    image_size : tuple of two ints, default=None
        Height and width that pictures get.
    preprocessing : callable, default=None
        What belongs to the weights, where no transform is given.
    channels : int, default=None
        How many the network takes, where that is known.
    is_linear : bool, default=False
        Whether a linear head takes a table of any numbers.
    bytes_matter : bool, default=False
        Whether a transform of the user acts on the pictures: then they become bytes where bytes
        were described, and floats where floats were, whatever they come from.
    any_size : bool, default=False
        Whether preprocessing brings pictures of any size to one.
    """

    name: str
    argument: str = "X"
    collate_fn: Any = None
    image_size: tuple | None = None
    preprocessing: Any = None
    channels: int | None = None
    is_linear: bool = False
    bytes_matter: bool = False
    any_size: bool = False


@dataclass(frozen=True)
class InputDescription:
    """How an X looks, and how another X becomes samples of the same kind.

    Parameters
    ----------
    sample_shape : tuple of int, or None
        Shape of one sample of an array or tensor; None for files, texts and datasets.
    dtype : str or None
        Type of the samples, such as "uint8"; None where it is unknown.
    scale : {"unit", "own"} or None
        Of pictures: "unit" is bytes, 16 bits or floats in [0, 1], which are the same pictures;
        "own" is any other. None where X has no pictures.
    value_range : tuple of two floats, or None
        Smallest and largest value, of pictures of a scale of their own, and of floats of shape
        (n_samples, height, width), which may be pictures.
    channels : int or None
        Of pictures.
    is_uint16 : bool
        Whether pictures had 16 bits.
    """

    sample_shape: tuple | None = None
    dtype: str | None = None
    scale: str | None = None
    value_range: tuple | None = None
    channels: int | None = None
    is_uint16: bool = False

    @classmethod
    def of(cls, X, how):
        """The samples of the X of ``fit``, and their description.

        Parameters
        ----------
        X : any kind of samples, without groups
        how : Reading

        Returns
        -------
        samples : TensorSamples or DatasetSamples
        description : InputDescription
        """
        samples, scale, value_range = _look_at(X, how, None)
        tensor = samples.tensor if isinstance(samples, TensorSamples) else None
        if scale is None:
            if tensor is None:
                return samples, cls()
            is_grey = tensor.ndim == 3 and tensor.is_floating_point()
            own_range = scale_of(tensor)[1] if is_grey else None
            return samples, cls(samples.sample_shape, _type_name(tensor), None, own_range)
        picture = _pictures_of(samples)[0] if tensor is None else tensor
        description = cls(
            dtype="uint8" if scale == "bytes" else "float32",
            scale="own" if scale == "own" else "unit",
            value_range=value_range if scale == "own" else None,
            channels=picture.shape[-3] if how.channels is None else how.channels,
            is_uint16=scale == "uint16",
        )
        samples = description._conform(samples, scale, value_range, how)
        if tensor is None:
            return samples, description
        return samples, cls(**vars(description) | {"sample_shape": samples.sample_shape})

    def read(self, X, how):
        """Samples of another X, in the form of those that were described.

        Parameters
        ----------
        X : any kind of samples, without groups
        how : Reading

        Returns
        -------
        samples : TensorSamples or DatasetSamples

        Raises
        ------
        ValueError
            If shapes differ, or the scale of pictures is another one that is not known.
        """
        return self._conform(*_look_at(X, how, self), how)

    def _conform(self, samples, scale, value_range, how):
        is_tensor = isinstance(samples, TensorSamples)
        if scale is not None:
            scale = self._check_scale(scale, value_range, samples, how)
            change = self._change_tensor if is_tensor else self._form
            return change(samples, scale, how)
        if not is_tensor:
            return samples
        tensor = samples.tensor
        if self.dtype is not None and tensor.ndim == 2:
            tensor = self._retype(tensor)
        elif tensor.dtype == torch.uint8 and self._may_be_grey and not self._is_unit:
            raise ValueError(self._unknown_scale(how, "of type uint8"))
        self._check_shape(samples.sample_shape, how)
        return samples if tensor is samples.tensor else TensorSamples(tensor)

    def _change_tensor(self, samples, scale, how):
        """Pictures in memory, with channels, size and type of those that were described."""
        tensor = with_channels(from_scale(samples.tensor, scale), self.channels, how.name)
        tensor = resize(tensor, how.image_size)
        self._check_shape(tuple(tensor.shape[1:]), how)
        if self.scale == "unit":
            tensor = retype(tensor, self._type(how) or ("float32" if self._has_floats else None))
        return TensorSamples(tensor, is_raw=self.scale != "own")

    def _form(self, samples, scale, how):
        """Pictures that are read one by one: what is done to each."""
        return samples.with_form(
            PictureForm(
                how.name,
                scale,
                self.channels,
                how.image_size,
                self._type(how) if self.scale == "unit" else None,
                how.preprocessing if self.scale != "own" else None,
            )
        )

    def _type(self, how):
        """Type that a transform of the user has to see."""
        if not how.bytes_matter:
            return None
        return "float32" if self._has_floats else "uint8"

    @property
    def _has_floats(self):
        return self.dtype is not None and getattr(torch, self.dtype).is_floating_point

    @property
    def _may_be_grey(self):
        """Floats (n_samples, height, width) may be pictures, or sequences."""
        return self.scale is None and self.value_range is not None

    @property
    def _is_unit(self):
        return self.value_range[0] >= 0 and self.value_range[1] <= 1

    def _check_shape(self, shape, how):
        expected = self.sample_shape
        if expected is None or shape == expected:
            return
        if how.any_size and len(shape) == len(expected) == 3 and shape[0] == expected[0]:
            return
        raise ValueError(
            f"{how.argument} has samples of shape {shape}, but {how.name} was fitted on samples "
            f"of shape {expected}."
        )

    def _retype(self, tensor):
        """Whole numbers, such as those of tokens, or floats: a table as it was described."""
        if tensor.is_floating_point() == self._has_floats:
            return tensor
        return tensor.float() if self._has_floats else tensor.to(getattr(torch, self.dtype))

    def _check_scale(self, scale, value_range, samples, how):
        """The scale of other pictures, where it is known what they are on the scale of these."""
        low, high = value_range
        if self.scale == "own":
            if scale != "own":
                raise ValueError(self._unknown_scale(how, _what(samples)))
            if how.preprocessing is not None and self.value_range[0] >= 0:
                raise ValueError(
                    f"{how.argument} has pictures with values from {low:g} to {high:g}, but "
                    "weights= has preprocessing for pictures of type uint8 or with values in "
                    "[0, 1]. Divide them by their largest possible value, or pass an "
                    "eval_transform that takes them as they are."
                )
        elif self.scale == "unit" and scale == "own":
            if low < _UNIT_RANGE[0] or high > _UNIT_RANGE[1]:
                raise ValueError(
                    f"{how.argument} has pictures with values from {low:g} to {high:g}, but "
                    f"{how.name} was fitted on pictures of type uint8 or with values in [0, 1]. "
                    "Pass them as uint8, or divide them by their largest possible value."
                )
            return "unit"
        return scale

    def _unknown_scale(self, how, what):
        low, high = self.value_range
        return (
            f"{how.argument} has pictures {what}, but {how.name} was fitted on pictures with "
            f"values from {low:g} to {high:g}, a scale that is not known. Convert "
            f"{how.argument} as the training pictures were."
        )


# --------------------------------------------------------------------------------------
# What X is, before it is compared with anything


def _look_at(X, how, description):
    """Samples with channels first, the scale of pictures (None of others), and their range."""
    samples = as_samples(X, collate_fn=how.collate_fn)
    if len(samples) == 0:
        raise ValueError(f"{how.argument} has 0 samples; {how.name} needs at least one.")
    has_own_scale = description is not None and description.scale == "own"
    if isinstance(samples, DatasetSamples):
        if isinstance(samples.dataset, ImagePaths):
            samples.dataset.check_files(name=how.argument)
        pictures = _pictures_of(samples)
        if pictures is None:
            return samples, None, None
        found = [_scale(p, p.dtype, description, has_own_scale) for p in pictures]
        low, high = min(r[0] for _, r in found), max(r[1] for _, r in found)
        scales = {scale for scale, _ in found}
        for scale in ("own", "uint16", "bytes", "unit"):  # what one shows holds for all
            if scale in scales:
                return samples, scale, (low, high)
    tensor = _layout(samples.tensor, X, how, description)
    samples = samples if tensor is samples.tensor else TensorSamples(tensor)
    if not _has_picture_shape(tensor):
        return samples, None, None
    dtype = X.dtype if isinstance(X, np.ndarray) else tensor.dtype
    return samples, *_scale(tensor, dtype, description, has_own_scale)


def _scale(pictures, dtype, description, has_own_scale):
    """Scale and range; whole numbers among pictures of a scale of their own are no bytes."""
    is_uint16 = dtype in (np.uint16, torch.uint16)
    is_whole = isinstance(dtype, np.dtype) and dtype.kind in "iu"  # before they became floats
    scale, value_range = scale_of(pictures, is_whole=is_whole, is_uint16=is_uint16)
    if is_uint16 and description is not None and description.is_uint16:
        scale = "uint16"
    if has_own_scale and pictures.dtype != torch.uint8:
        scale = "own"
    return scale, value_range


def _pictures_of(samples):
    """A few samples of a dataset as pictures, or None if they are none."""
    if samples.collate_fn is not None:
        return None
    pictures = []
    with seeded_draws(0):  # transforms of the dataset may draw
        for i in sorted({0, len(samples) // 2, len(samples) - 1}):
            if samples.are_image_files:
                return [torch.empty(3, 0, 0, dtype=torch.uint8)]  # as all files are read
            pictures.append(as_picture(samples[i]))
            if pictures[-1] is None:
                return None
            if pictures[-1].dtype == torch.uint8:
                break  # the type says it for all
    return pictures


def _layout(tensor, X, how, description):
    """A tensor of known layout: pictures with channels first, and grey ones with a channel."""
    if tensor.ndim < 2:
        raise ValueError(
            f"{how.argument} has shape {tuple(tensor.shape)}; expected one row per sample."
        )
    # A sum tells quickly that all is well; one that is not finite may also have overflowed.
    is_doubtful = tensor.is_floating_point() and not tensor.sum().isfinite()
    if is_doubtful and not tensor.isfinite().all():
        raise ValueError(f"{how.argument} contains NaN or infinity. Impute or drop these samples.")
    if tensor.ndim == 2:
        # Bytes in a table are no picture; for a linear head, no other numbers are special.
        is_number = how.is_linear or tensor.dtype in (torch.uint8, torch.uint16)
        tensor = tensor.float() if is_number and not tensor.is_floating_point() else tensor
    elif tensor.ndim == 3 and _is_grey(tensor, X, how, description):
        tensor = tensor.unsqueeze(1)
    elif tensor.ndim == 4 and (description is None or _needs_layout(tensor, description)):
        tensor = channels_first(tensor if torch.is_tensor(X) else tensor.numpy())
        tensor = tensor if torch.is_tensor(tensor) else torch.from_numpy(tensor)
    return tensor.contiguous()


def _needs_layout(tensor, description):
    return description.sample_shape is None or tuple(tensor.shape[1:]) != description.sample_shape


def _is_grey(tensor, X, how, description):
    """Whether (n, height, width) are grey pictures; floats may be sequences."""
    if description is not None and description._may_be_grey:
        return False
    was_described = description is not None and description.scale is not None
    is_array_of_bytes = isinstance(X, np.ndarray) and X.dtype in (np.uint8, np.uint16)
    is_whole = isinstance(X, np.ndarray) and X.dtype.kind in "iu" and not is_array_of_bytes
    return (
        was_described
        or how.channels is not None
        or is_array_of_bytes
        or tensor.dtype in (torch.uint8, torch.uint16)
        or (is_whole and scale_of(tensor)[0] == "bytes")
    )


def _type_name(tensor):
    return str(tensor.dtype).removeprefix("torch.")


def _has_picture_shape(tensor):
    return tensor.ndim == 4 and tensor.shape[1] in CHANNELS and tensor.numel() > 0


def _what(samples):
    """What bytes of pictures are, in the words of an error message."""
    if not isinstance(samples, DatasetSamples):
        return "of type uint8"
    are_files = samples.are_image_files
    return "image files, of values 0 to 255" if are_files else "of values 0 to 255"
