"""Views of pictures: the middle masked or kept, pieces shuffled, blurred, without colours."""

from numbers import Integral, Real

import numpy as np
import torch
from scipy.fft import dct

from skspurious.utils._sklearn_compat import Interval
from skspurious.views._base import PictureView, restore_type, rng_of

_LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue, as in torchvision


class _Center(PictureView):
    """The two views that divide a picture in the middle and the rest."""

    _parameter_constraints: dict = {
        "fraction": [Interval(Real, 0, 1, closed="neither")],
        "fill": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(self, fraction=0.6, *, fill=0.0):
        self.fraction = fraction
        self.fill = fill

    def _middle(self, pictures):
        """Slices of rows and columns."""
        size = pictures.shape[-2:]
        if min(size) < 3:
            raise ValueError(
                f"a picture has {size[0]} x {size[1]} pixels; {type(self).__name__} needs 3 x 3, "
                "or there is no border around a middle."
            )
        kept = [min(max(round(self.fraction * n), 1), n - 2) for n in size]
        starts = [(n - k) // 2 for n, k in zip(size, kept, strict=True)]
        return tuple(slice(start, start + k) for start, k in zip(starts, kept, strict=True))

    def _fill_of(self, pictures):
        """`fill` in the type of the pictures."""
        if pictures.dtype == torch.bool:
            return self.fill >= 0.5
        return self.fill if pictures.is_floating_point() else round(255 * self.fill)


class MaskCenter(_Center):
    """Hides the middle of every picture: what is left is its border.

    Where the object stands in the middle, a model of this view knows the background alone.

    .. versionadded:: 0.1

    Parameters
    ----------
    fraction : float, default=0.6
        Share of the height and of the width that is hidden.
    fill : float, default=0.0
        What is put there: 0 is black and 1 is white, in bytes 255. In pictures of a scale of
        their own, the value itself.

    See Also
    --------
    KeepCenter : The other part of the picture.
    ShufflePatches : Another view that lacks the object.

    Notes
    -----
    ``round(fraction * height)`` rows are hidden, at least one and at most all but two, so that
    there is a border on all sides; where it cannot be equally wide, the lower and right ones are
    one pixel wider. Pictures need 3 x 3 pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.views import MaskCenter
    >>> MaskCenter(0.5).transform(np.ones((1, 1, 4, 4)))[0, 0]
    array([[1., 1., 1., 1.],
           [1., 0., 0., 1.],
           [1., 0., 0., 1.],
           [1., 1., 1., 1.]])
    """

    def _change(self, pictures):
        rows, columns = self._middle(pictures)
        pictures[:, :, rows, columns] = self._fill_of(pictures)
        return pictures


class KeepCenter(_Center):
    """Keeps the middle of every picture, and hides the border.

    .. versionadded:: 0.1

    Parameters
    ----------
    fraction : float, default=0.6
        Share of the height and of the width that is kept.
    fill : float, default=0.0
        What is put in place of the rest: 0 is black and 1 is white, in bytes 255. In pictures of
        a scale of their own, the value itself.

    See Also
    --------
    MaskCenter : The other part of the picture; its Notes say how the middle is found.

    Notes
    -----
    The size of the picture stays. What one of the two views hides, the other one keeps.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.views import KeepCenter
    >>> KeepCenter(0.5).transform(np.ones((1, 1, 4, 4)))[0, 0]
    array([[0., 0., 0., 0.],
           [0., 1., 1., 0.],
           [0., 1., 1., 0.],
           [0., 0., 0., 0.]])
    """

    def _change(self, pictures):
        rows, columns = self._middle(pictures)
        result = torch.full_like(pictures, self._fill_of(pictures))
        result[:, :, rows, columns] = pictures[:, :, rows, columns]
        return result


class ShufflePatches(PictureView):
    """Cuts every picture in pieces, and puts them together in another order.

    What is left are colours and textures; shapes that are larger than a piece are gone [1]_.

    .. versionadded:: 0.1

    Parameters
    ----------
    n_patches : int, default=8
        Pieces along each axis: 8 makes 64 of them.
    random_state : int, default=0
        Seed of the orders.

    See Also
    --------
    MaskCenter : Another view that lacks the object.

    Notes
    -----
    Each picture has an order of its own, that the seed and its content decide (a checksum of its
    pixels). So it is the same in ``fit_transform`` and later, in a part of the rows, from a file
    and from an array, in bytes and as a float between 0 and 1; and equal pictures are shuffled
    alike. Where the size is no multiple of `n_patches`, a margin of less than one piece stays as
    it is; a picture of fewer pixels than pieces along an axis is cut into pixels.

    References
    ----------
    .. [1] A. Puli, N. Joshi, Y. Wald, H. He, R. Ranganath, "Nuisances via Negativa: Adjusting for
       Spurious Correlations via Data Augmentation", 2022. arXiv:2210.01302.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.views import ShufflePatches
    >>> picture = np.arange(16).reshape(1, 1, 4, 4)
    >>> ShufflePatches(2, random_state=1).transform(picture)[0, 0]
    array([[ 2,  3,  0,  1],
           [ 6,  7,  4,  5],
           [10, 11,  8,  9],
           [14, 15, 12, 13]])
    """

    _parameter_constraints: dict = {
        "n_patches": [Interval(Integral, 2, None, closed="left")],
        "random_state": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(self, n_patches=8, *, random_state=0):
        self.n_patches = n_patches
        self.random_state = random_state

    def _change(self, pictures):
        n, channels, height, width = pictures.shape
        down, across = (min(self.n_patches, size) for size in (height, width))
        h, w = height // down, width // across
        top, left = (height - down * h) // 2, (width - across * w) // 2
        inner = pictures[:, :, top : top + down * h, left : left + across * w]
        pieces = inner.reshape(n, channels, down, h, across, w).permute(0, 2, 4, 1, 3, 5)
        pieces = pieces.reshape(n, down * across, channels, h, w)
        order = np.stack([self._rng(p).permutation(down * across) for p in pictures.cpu()])
        order = torch.from_numpy(order).to(pictures.device)
        pieces = pieces[torch.arange(n, device=order.device)[:, None], order]
        pieces = pieces.reshape(n, down, across, channels, h, w).permute(0, 3, 1, 4, 2, 5)
        pictures[:, :, top : top + down * h, left : left + across * w] = pieces.reshape(inner.shape)
        return pictures

    def _rng(self, picture):
        return rng_of(_content(picture), self.random_state)


def _content(picture):
    """Bytes that are the same for bytes and for floats between 0 and 1."""
    if picture.is_floating_point():
        picture = picture.float()
        low, high = picture.min().item(), picture.max().item()
        if low >= 0 and high <= 1:
            picture = picture.mul(255).round().to(torch.uint8)
    elif picture.dtype != torch.uint8 and picture.min() >= 0 and picture.max() <= 255:
        picture = picture.to(torch.uint8)
    return picture.contiguous().numpy().tobytes()


class LowPass(PictureView):
    """Blurs every picture until only large areas of colour are left.

    .. versionadded:: 0.1

    Parameters
    ----------
    sigma : float, default=0.1
        Standard deviation of the Gaussian, as a share of the height and of the width; at least
        one pixel.

    See Also
    --------
    ShufflePatches : Keeps what is small in place of what is large.

    Notes
    -----
    At its border the picture goes on as its mirror image, so every channel keeps its mean. Bytes
    are rounded.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.views import LowPass
    >>> board = np.indices((8, 8)).sum(axis=0) % 2 * 200.0
    >>> LowPass().transform(board[None]).round()[0, 3]
    array([100., 100., 100., 100., 100., 100., 100., 100.])
    """

    _parameter_constraints: dict = {"sigma": [Interval(Real, 0, None, closed="neither")]}

    def __init__(self, sigma=0.1):
        self.sigma = sigma

    def _change(self, pictures):
        across, down = (self._kernel(n).to(pictures.device) for n in pictures.shape[:1:-1])
        for i, picture in enumerate(pictures):  # each alone: a product's last bits depend on sizes
            pictures[i] = restore_type(down @ picture.double() @ across, pictures.dtype)
        return pictures

    def _kernel(self, n):
        """What blurs along an axis of n pixels: the heat equation, solved in the cosine basis."""
        basis = dct(np.eye(n), axis=0, norm="ortho")
        sigma = max(self.sigma * n, 1.0)
        damping = np.exp(-0.5 * (np.pi * np.arange(n) / n * sigma) ** 2)
        return torch.from_numpy(basis.T @ (damping[:, None] * basis))


class Grayscale(PictureView):
    """Takes the colours out of every picture; it still has as many channels.

    Where the colour is the object's and not the shortcut, what is left is the rest.

    .. versionadded:: 0.1

    See Also
    --------
    LowPass : Takes out what is small.

    Notes
    -----
    The channels of red, green and blue become 0.2989 red + 0.587 green + 0.114 blue, as in
    torchvision; bytes are rounded, not cut off. The fourth channel of four stays as it is. Grey
    pictures, of one channel or none, stay as they are.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.views import Grayscale
    >>> red = np.zeros((1, 3, 1, 1), dtype=np.uint8)
    >>> red[:, 0] = 200
    >>> Grayscale().transform(red).ravel()
    array([60, 60, 60], dtype=uint8)
    """

    def _change(self, pictures):
        if pictures.shape[1] == 1:
            return pictures
        pictures[:, :3] = restore_type(luma(pictures), pictures.dtype)
        return pictures


def luma(pictures):
    """Brightness of pictures in float64, of shape (n, 1, height, width)."""
    n_channels = pictures.shape[1]
    if n_channels == 1:
        return pictures.double()
    if n_channels not in (3, 4):
        raise ValueError(
            f"pictures have {n_channels} channels; 1, 3 (red, green, blue) or 4 are needed."
        )
    parts = [pictures[:, k : k + 1].double() * weight for k, weight in enumerate(_LUMA)]
    return parts[0] + parts[1] + parts[2]
