"""Random geometric transforms of image batches, drawn anew for every image."""

import math
from numbers import Real

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["RandomWarp"]


class RandomWarp(nn.Module):
    """Rotate, shift, scale, shear and bend every image of a batch by its own random amounts.

    Meant for ``train_transform``, which acts on whole batches: a transform of
    ``torchvision.transforms.v2`` draws once per call, and would warp all images of a batch alike.
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
            if not isinstance(value, Real) or not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a number of at least 0; got {value!r}.")
        if shear >= 90:
            raise ValueError(f"shear must be below 90 degrees; got {shear!r}.")
        self.degrees = degrees
        self.translate = translate
        self.scale = scale
        self.shear = shear
        self.bend = bend

    def forward(self, images):
        """Warped images, float32 (uint8 images: in [0, 1]), of shape (n, channels, h, w)."""
        x = images.float() / 255 if images.dtype == torch.uint8 else images.float()
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
            return (2 * torch.rand(n, device=device) - 1) * bound

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
