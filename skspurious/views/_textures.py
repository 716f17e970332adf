"""Statistics of pictures that do not depend on the place: small blocks, and the spectrum."""

import torch
from torch.nn import functional as F

from skspurious.views._images import luma

_BLOCK = 0.125  # side of a block, as a share of the shorter side
_TILE = 16  # pixels of a tile whose spectrum is taken
_FLOOR = 1e-6  # added to energies: below what bytes can show


def blocks(pictures, n_bands):
    """Smallest and largest mean and spread of blocks, wherever they stand."""
    side = max(1, round(_BLOCK * min(pictures.shape[-2:])))
    stride = max(1, side // 4)
    colours = _colours(pictures)
    maps = torch.stack(list(colours.values()), dim=1)
    mean = F.avg_pool2d(maps, side, stride)
    spread = (F.avg_pool2d(maps * maps, side, stride) - mean * mean).clamp(min=0).sqrt()
    columns = {}
    for what, values in (("mean", mean), ("std", spread)):
        for k, name in enumerate(colours):
            columns[f"block_{name}_{what}_min"] = values[:, k].amin(dim=(1, 2))
            columns[f"block_{name}_{what}_max"] = values[:, k].amax(dim=(1, 2))
    return columns


def spectrum(pictures, n_bands):
    """Logarithm of the energy at each frequency, mean over tiles that overlap by half.

    Of brightness for each frequency; of differences of colours for rings of frequencies.
    """
    half = _TILE // 2
    maps = _colours(pictures)
    energy = _energy(maps["brightness"])
    columns = {}
    for across in range(half + 1):
        is_mirrored = across in (0, half)  # there a frequency and its mirror image are one
        for down in range(0 if is_mirrored else 1 - half, half + 1):
            if (down, across) != (0, 0):
                columns[f"spectrum_{down}_{across}"] = (energy[:, down, across] + _FLOOR).log()
    down = torch.fft.fftfreq(_TILE, 1.0 / _TILE, device=pictures.device)
    ring = torch.hypot(down[:, None], torch.arange(half + 1.0, device=pictures.device)).round()
    for name in ("red_green", "yellow"):
        if name in maps:
            energy = _energy(maps[name])
            for r in range(1, half + 1):
                values = energy[:, ring == r].mean(dim=1)
                columns[f"spectrum_{name}_{r}"] = (values + _FLOOR).log()
    return columns


def _energy(maps):
    """Energy of maps of shape (n, height, width) at (down, across), mean over windowed tiles."""
    missing = [max(0, _TILE - size) for size in maps.shape[-2:]]
    maps = F.pad(maps[:, None], (0, missing[1], 0, missing[0]), mode="replicate")[:, 0]
    tiles = maps.unfold(1, _TILE, _TILE // 2).unfold(2, _TILE, _TILE // 2)
    window = torch.hann_window(_TILE, dtype=maps.dtype, device=maps.device)
    tiles = (tiles - tiles.mean(dim=(-2, -1), keepdim=True)) * window[:, None] * window
    return torch.fft.rfft2(tiles).abs().square().mean(dim=(1, 2))


def _colours(pictures):
    """Channels, brightness and differences of colours, shape (n, height, width) each."""
    maps = {"brightness": luma(pictures)[:, 0]}
    if pictures.shape[1] >= 3:
        red, green, blue = pictures[:, :3].unbind(dim=1)
        maps |= {"red": red, "green": green, "blue": blue}
        maps |= {"red_green": red - green, "red_blue": red - blue, "green_blue": green - blue}
        maps |= {
            "yellow": (red + green) / 2 - blue,
            "magenta": (red + blue) / 2 - green,
            "cyan": (green + blue) / 2 - red,
        }
    return maps
