"""Random transforms of image batches, drawn anew for every image.

They are for ``train_transform``, which acts on whole batches: a transform of
``torchvision.transforms.v2`` draws once per call, and would change all images of a batch alike.
``torch.nn.Sequential`` puts several in a row.
"""

import math
from numbers import Integral, Real

import torch
from torch import nn
from torch.nn import functional as F

__all__ = [
    "ColorJitter",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomWarp",
]


class RandomHorizontalFlip(nn.Module):
    """Mirror every image of a batch, left to right, or leave it.

    .. versionadded:: 0.1

    Parameters
    ----------
    p : float, default=0.5
        Probability that an image is mirrored.

    Examples
    --------
    >>> import torch
    >>> from skspurious.transforms import RandomHorizontalFlip
    >>> RandomHorizontalFlip(p=1.0)(torch.tensor([[[[1, 2, 3]]]])).tolist()
    [[[[3, 2, 1]]]]
    """

    def __init__(self, p=0.5):
        super().__init__()
        _check_number("p", p, largest=1)
        self.p = p

    def forward(self, images):
        """Images of the same type and shape (n, channels, h, w)."""
        is_flipped = torch.rand(len(images), device=images.device) < self.p
        return torch.where(is_flipped[:, None, None, None], images.flip(3), images)

    def extra_repr(self):
        return f"p={self.p}"


class RandomCrop(nn.Module):
    """Pad every image of a batch with black, and crop it to its size at a place of its own.

    .. versionadded:: 0.1

    Parameters
    ----------
    padding : int, default=4
        Pixels on each side: the largest shift.

    Examples
    --------
    >>> import torch
    >>> from skspurious.transforms import RandomCrop
    >>> images = torch.zeros(4, 3, 28, 28, dtype=torch.uint8)
    >>> RandomCrop(padding=2)(images).shape
    torch.Size([4, 3, 28, 28])
    """

    def __init__(self, padding=4):
        super().__init__()
        if not isinstance(padding, Integral) or padding < 0:
            raise ValueError(f"padding must be an integer of at least 0; got {padding!r}.")
        self.padding = padding

    def forward(self, images):
        """Images of the same type and shape (n, channels, h, w)."""
        n, channels, height, width = images.shape
        padded = F.pad(images, [self.padding] * 4)
        corner = torch.randint(2 * self.padding + 1, (2, n, 1), device=images.device)
        rows = corner[0] + torch.arange(height, device=images.device)
        columns = corner[1] + torch.arange(width, device=images.device)
        image = torch.arange(n, device=images.device)[:, None, None, None]
        channel = torch.arange(channels, device=images.device)[None, :, None, None]
        return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]

    def extra_repr(self):
        return f"padding={self.padding}"


class RandomResizedCrop(nn.Module):
    """Enlarge a random part of every image of a batch to the size of the image.

    .. versionadded:: 0.1

    Parameters
    ----------
    scale : tuple of two floats, default=(0.7, 1.0)
        Smallest and largest share of the area that the part has.
    ratio : tuple of two floats, default=(0.75, 4 / 3)
        Smallest and largest factor by which its width over its height differs from the image's.
        A side that would be longer than the image's is as long.

    Examples
    --------
    >>> import torch
    >>> from skspurious.transforms import RandomResizedCrop
    >>> images = torch.zeros(4, 3, 28, 28, dtype=torch.uint8)
    >>> RandomResizedCrop()(images).shape
    torch.Size([4, 3, 28, 28])
    """

    def __init__(self, scale=(0.7, 1.0), ratio=(3 / 4, 4 / 3)):
        super().__init__()
        for name, value, largest in (("scale", scale, 1), ("ratio", ratio, math.inf)):
            if not 0 < value[0] <= value[1] <= largest:
                raise ValueError(
                    f"{name} must be two numbers above 0, the smaller one first, of at most "
                    f"{largest}; got {value!r}."
                )
        self.scale = tuple(scale)
        self.ratio = tuple(ratio)

    def forward(self, images):
        """Parts of the images, float32 (uint8 images: in [0, 1]), of shape (n, channels, h, w)."""
        x = _as_floats(images)
        n, device = len(x), x.device
        area = _uniform(n, *self.scale, device)
        ratio = _uniform(n, *map(math.log, self.ratio), device).exp()
        width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        right, down = ((1 - side) * _uniform(n, -1, 1, device) for side in (width, height))
        zero = torch.zeros_like(width)
        maps = torch.stack(
            [torch.stack([width, zero, right], 1), torch.stack([zero, height, down], 1)], 1
        )
        grid = F.affine_grid(maps, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False)

    def extra_repr(self):
        return f"scale={self.scale}, ratio={self.ratio}"


class ColorJitter(nn.Module):
    """Change brightness, contrast and saturation of every image by its own random factors.

    Colours may be the feature that is spurious: jitter then hides it.

    .. versionadded:: 0.1

    Parameters
    ----------
    brightness, contrast, saturation : float, default=0.2
        A factor lies between ``1 - value`` and ``1 + value``: of all values, of their distances
        from the mean grey level of the image, and from the grey level of the pixel.

    Examples
    --------
    >>> import torch
    >>> from skspurious.transforms import ColorJitter
    >>> images = torch.zeros(4, 3, 28, 28, dtype=torch.uint8)
    >>> ColorJitter(brightness=0.4)(images).shape
    torch.Size([4, 3, 28, 28])
    """

    _GREY = (0.299, 0.587, 0.114)

    def __init__(self, brightness=0.2, contrast=0.2, saturation=0.2):
        super().__init__()
        for name in ("brightness", "contrast", "saturation"):
            value = {"brightness": brightness, "contrast": contrast}.get(name, saturation)
            _check_number(name, value, largest=1)
            setattr(self, name, value)

    def forward(self, images):
        """Images, float32 (uint8 images: in [0, 1]), of shape (n, channels, h, w).

        Values stay in [0, 1], or in the range of an image that goes beyond.
        """
        x = _as_floats(images)
        low = x.amin((1, 2, 3), keepdim=True).clamp(max=0)
        high = x.amax((1, 2, 3), keepdim=True).clamp(min=1)
        colour, alpha = (x, x[:, :0]) if x.shape[1] < 4 else (x[:, :3], x[:, 3:])
        colour = (colour * self._factors(self.brightness, x)).clamp(low, high)
        mean = self._grey(colour).mean((1, 2, 3), keepdim=True)
        colour = (mean + self._factors(self.contrast, x) * (colour - mean)).clamp(low, high)
        grey = self._grey(colour)
        colour = (grey + self._factors(self.saturation, x) * (colour - grey)).clamp(low, high)
        return torch.cat([colour, alpha], 1)

    def _factors(self, value, x):
        return _uniform(len(x), 1 - value, 1 + value, x.device)[:, None, None, None]

    def _grey(self, colour):
        if colour.shape[1] != 3:
            return colour.mean(1, keepdim=True)
        weight = torch.tensor(self._GREY, device=colour.device)
        return (colour * weight[:, None, None]).sum(1, keepdim=True)

    def extra_repr(self):
        return (
            f"brightness={self.brightness}, contrast={self.contrast}, saturation={self.saturation}"
        )


class RandomWarp(nn.Module):
    """Rotate, shift, scale, shear and bend every image of a batch by its own random amounts.

    A group of ten images that comes a thousand times is memorised unless its images vary.
    Places that no pixel reaches repeat the border of the image, so no new colour appears. Only
    the geometry changes: the transform does not know which feature is spurious.

    Parameters
    ----------
    degrees : float, default=15.0
        Largest rotation, either way.
    translate : float, default=0.1
        Largest shift along each axis, as a share of the image.
    scale : float, default=0.15
        Each axis is scaled by a factor between ``1 / (1 + scale)`` and ``1 + scale``.
    shear : float, default=15.0
        Largest shear angle, in degrees.
    bend : float, default=0.0
        Standard deviation of a smooth random displacement, as a share of half the image.

    Examples
    --------
    >>> import torch
    >>> from skspurious.transforms import RandomWarp
    >>> images = torch.zeros(4, 3, 28, 28, dtype=torch.uint8)
    >>> RandomWarp()(images).shape
    torch.Size([4, 3, 28, 28])
    """

    _N_KNOTS = 5  # of the displacement, along each axis

    def __init__(self, degrees=15.0, translate=0.1, scale=0.15, shear=15.0, bend=0.0):
        super().__init__()
        params = {
            "degrees": degrees,
            "translate": translate,
            "scale": scale,
            "shear": shear,
            "bend": bend,
        }
        for name, value in params.items():
            _check_number(name, value)
        if shear >= 90:
            raise ValueError(f"shear must be below 90 degrees; got {shear!r}.")
        self.degrees = degrees
        self.translate = translate
        self.scale = scale
        self.shear = shear
        self.bend = bend

    def forward(self, images):
        """Warped images, float32 (uint8 images: in [0, 1]), of shape (n, channels, h, w)."""
        x = _as_floats(images)
        grid = F.affine_grid(self._matrices(len(x), x.device), list(x.shape), align_corners=False)
        if self.bend:
            knots = self.bend * torch.randn(
                len(x), 2, self._N_KNOTS, self._N_KNOTS, device=x.device
            )
            field = F.interpolate(knots, size=x.shape[2:], mode="bicubic", align_corners=True)
            grid = grid + field.permute(0, 2, 3, 1)
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False)

    def _matrices(self, n, device):
        """One affine map per image, as (n, 2, 3), from output to input coordinates."""

        def uniform(bound):
            return _uniform(n, -bound, bound, device)

        angle = uniform(math.radians(self.degrees))
        cos, sin = angle.cos(), angle.sin()
        stretch_x = uniform(math.log1p(self.scale)).exp()
        stretch_y = uniform(math.log1p(self.scale)).exp()
        slant = uniform(math.tan(math.radians(self.shear)))
        shift_x, shift_y = uniform(2 * self.translate), uniform(2 * self.translate)
        top = [cos * stretch_x, (cos * slant - sin) * stretch_y, shift_x]
        bottom = [sin * stretch_x, (sin * slant + cos) * stretch_y, shift_y]
        return torch.stack([torch.stack(top, 1), torch.stack(bottom, 1)], 1)

    def extra_repr(self):
        return (
            f"degrees={self.degrees}, translate={self.translate}, scale={self.scale}, "
            f"shear={self.shear}, bend={self.bend}"
        )


def _as_floats(images):
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def _uniform(n, low, high, device):
    """One random number for each image."""
    return low + (high - low) * torch.rand(n, device=device)


def _check_number(name, value, largest=math.inf):
    if not isinstance(value, Real) or not 0 <= value <= largest or value == math.inf:
        at_most = "" if largest == math.inf else f" and at most {largest}"
        raise ValueError(f"{name} must be a number of at least 0{at_most}; got {value!r}.")
