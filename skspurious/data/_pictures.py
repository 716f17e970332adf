"""Pictures as people have them, as tensors of shape (channels, height, width)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

CHANNELS = (1, 3, 4)
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # of Pillow: 16 bits a pixel
_CHUNK = 256  # pictures that are resized at a time


def read_file(path, row):
    """The picture in a file, as bytes of shape (3, height, width).

    Raises
    ------
    ValueError
        If the file cannot be read as a picture; it names the row.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            return pillow_pixels(file)
    except Exception as error:  # Pillow raises many kinds
        raise ValueError(
            f"X[{row}] = {path!r} cannot be read as a picture: {error}. Replace the file, or "
            "leave this row out."
        ) from error


def is_pillow(sample):
    """Whether a sample is a picture of Pillow."""
    return hasattr(sample, "getbands") and hasattr(sample, "convert")


def pillow_pixels(image):
    """Bytes (3, height, width): upright, in RGB, 16 bits and floats by their scale."""
    from PIL import ImageOps
    from torchvision.transforms.functional import pil_to_tensor

    image = ImageOps.exif_transpose(image)
    if image.mode in _DEEP_MODES:
        return _grey_pixels(image, 65535)
    if image.mode == "F":
        return _grey_pixels(image, 1)
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return pil_to_tensor(image.convert("RGB"))


def _grey_pixels(image, largest):
    """Bytes of a picture of one channel with values from 0 to ``largest``."""
    values = np.asarray(image).astype(np.float64)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= largest):
        raise ValueError(
            f"its values go from {low:g} to {high:g}, where 0 to {largest} is the known scale; "
            "save it with that scale"
        )
    grey = torch.from_numpy(np.rint(values * (255 / largest)).astype(np.uint8))
    return grey.expand(3, -1, -1).clone()


def channels_first(pictures):
    """Pictures of shape (n, channels, height, width), whichever of the two layouts they have.

    Raises
    ------
    ValueError
        If an array may have either.
    """
    shape = tuple(pictures.shape)
    may_be_first, may_be_last = shape[1] in CHANNELS, shape[3] in CHANNELS
    if may_be_last and not may_be_first:
        is_tensor = torch.is_tensor(pictures)
        return pictures.permute(0, 3, 1, 2) if is_tensor else pictures.transpose(0, 3, 1, 2)
    if may_be_first and may_be_last and shape[2] != shape[3] and not torch.is_tensor(pictures):
        raise ValueError(
            f"X has shape {shape}, in which channels may come first or last. Where they come "
            "last, pass X.transpose(0, 3, 1, 2); where they come first, torch.from_numpy(X)."
        )
    return pictures


def with_channels(pictures, channels, name):
    """Pictures (..., channels, height, width) with one or three channels, as was fitted on."""
    have = pictures.shape[-3]
    if channels == have or channels not in (1, 3) or have not in (1, 3):
        return pictures
    if channels == 3:
        return pictures.expand(*pictures.shape[:-3], 3, *pictures.shape[-2:])
    grey = pictures[..., :1, :, :]
    if not (pictures == grey).all():
        raise ValueError(
            f"X has pictures in colour, but {name} was fitted on grey ones. Convert X as the "
            "training pictures were, or fit on pictures with three channels."
        )
    return grey


def resize(pictures, size):
    """Pictures (n, channels, height, width) of one size."""
    from torchvision.transforms.functional import resize

    if size is None or tuple(pictures.shape[-2:]) == size:
        return pictures
    parts = [resize(part, list(size), antialias=True) for part in pictures.split(_CHUNK)]
    return torch.cat(parts)


def as_picture(sample):
    """A sample of a dataset as a tensor (channels, height, width), or None if it is no picture.

    Of a tuple it is the first part. Values stay what they are.
    """
    sample = sample[0] if isinstance(sample, tuple | list) and len(sample) else sample
    if is_pillow(sample):
        return pillow_pixels(sample)
    if isinstance(sample, np.ndarray) and sample.dtype.kind in "uif":
        sample = torch.from_numpy(np.array(sample))
    if not torch.is_tensor(sample) or sample.dtype == torch.bool or sample.is_complex():
        return None
    if sample.ndim == 2 and sample.dtype == torch.uint8:
        sample = sample[None]
    if sample.ndim != 3 or not set(CHANNELS) & {sample.shape[0], sample.shape[2]}:
        return None
    return channels_first(sample[None])[0]


def scale_of(pictures, *, is_whole=False, is_uint16=False):
    """On which scale pictures are, by their type and values, and their smallest and largest value.

    Parameters
    ----------
    pictures : tensor
    is_whole, is_uint16 : bool
        Whether they were whole numbers, or of that type, before they became floats.

    Returns
    -------
    scale : {"bytes", "uint16", "unit", "own"}
        Whole numbers from 0 to 255, of any type; those of 16 bits, where larger ones occur; floats
        in [0, 1]; any other, which is not known.
    value_range : tuple of two floats
    """
    if pictures.dtype == torch.uint8:
        return "bytes", (0.0, 255.0)
    if pictures.dtype == torch.uint16:
        pictures, is_whole, is_uint16 = pictures.int(), True, True
    if pictures.dtype == torch.bool:
        return "unit", (0.0, 1.0)
    low, high = pictures.min().item(), pictures.max().item()
    if is_uint16 and high > 255:
        return "uint16", (low, high)
    if low < 0 or high > 255:
        return "own", (low, high)
    if is_whole or not pictures.is_floating_point():
        return "bytes", (low, high)
    if high <= 1:
        return "unit", (low, high)
    are_bytes = bool((pictures == pictures.round()).all())
    return "bytes" if are_bytes else "own", (low, high)


def from_scale(pictures, scale):
    """Pictures of a scale as uint8 ("bytes"), or as floats: in [0, 1] unless the scale is "own"."""
    if pictures.dtype == torch.uint8:
        return pictures
    if pictures.dtype == torch.uint16:
        pictures = pictures.int()
    if scale == "uint16":
        return pictures.float() / 65535
    if scale == "bytes":
        low, high = pictures.min().item(), pictures.max().item()
        if not 0 <= low <= high <= 255:
            raise ValueError(
                f"X has a picture with values from {low:g} to {high:g}, where those that were "
                "looked at first go from 0 to 255. Bring all pictures to one scale."
            )
        return pictures.round().to(torch.uint8)
    return pictures if pictures.is_floating_point() else pictures.float()


def retype(pictures, dtype):
    """Bytes as floats in [0, 1] or the other way, or as they are where dtype is None."""
    are_bytes = pictures.dtype == torch.uint8
    if dtype == "uint8" and not are_bytes:
        return pictures.mul(255).round().clamp(0, 255).to(torch.uint8)
    return pictures.float().div_(255) if dtype == "float32" and are_bytes else pictures


@dataclass(frozen=True)
class PictureForm:
    """What is done to each picture of files and datasets as it is read.

    Parameters
    ----------
    name : str
        Class of the estimator, for error messages.
    scale : {"bytes", "uint16", "unit", "own"}
        Scale of the pictures as they come.
    channels : int or None
        How many it gets, where it is grey or looks so.
    size : tuple of two ints, or None
        Height and width to which it is resized.
    dtype : {"uint8", "float32"} or None
        Bytes, or floats in [0, 1]; None leaves it.
    transform : callable or None
        Preprocessing of one picture, at the end.
    """

    name: str
    scale: str = "bytes"
    channels: int | None = None
    size: tuple | None = None
    dtype: str | None = None
    transform: Any = None

    def __call__(self, sample):
        """The picture of a sample, as the estimator's other pictures are."""
        picture = as_picture(sample)
        if picture is None:
            raise ValueError(
                f"a sample of X is a {type(sample).__name__} and no picture, where the first one "
                f"is: {self.name} needs samples of one kind."
            )
        picture = from_scale(picture, self.scale)
        picture = resize(with_channels(picture, self.channels, self.name)[None], self.size)[0]
        picture = retype(picture, self.dtype)
        return picture if self.transform is None else self.transform(picture)
