"""A small network for the examples, the tests and the benchmarks."""

from torch import nn

__all__ = ["LeNet"]


class LeNet(nn.Module):
    """Small convolutional network: two convolutions, three linear layers.

    A LeNet-5 [1]_ with rectified linear units and max-pooling, for images of any size and any
    number of channels. It trains in seconds on a CPU. For photographs name a torchvision network
    (``module="resnet18"``) or bring your own.

    Parameters
    ----------
    n_classes : int, default=5
        Width of the output; the classes of SpuCoMNIST unless given.

    in_channels : int, default=3
        Channels of the images.

    image_size : int or (int, int), default=28
        Height and width of the images in pixels; one number means a square.

    padding : int, default=None
        Padding of both convolutions. None means 0 for images of 28 by 28 pixels or more, as is
        usual, and 2 for smaller ones, of which little would be left otherwise.

    Raises
    ------
    ValueError
        If nothing is left of the images after two convolutions and poolings.

    References
    ----------
    .. [1] Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to
       Document Recognition", Proceedings of the IEEE 86(11), 1998.

    Examples
    --------
    >>> import torch
    >>> from skspurious.networks import LeNet
    >>> LeNet()(torch.zeros(2, 3, 28, 28)).shape
    torch.Size([2, 5])
    >>> LeNet(n_classes=10, in_channels=1, image_size=8)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(self, n_classes=5, in_channels=3, image_size=28, padding=None):
        super().__init__()
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if padding is None:
            padding = 0 if min(height, width) >= 28 else 2
        height, width = _size_after(height, padding), _size_after(width, padding)
        if min(height, width) < 1:
            raise ValueError(
                f"image_size={image_size!r} with padding={padding} is too small: nothing is left "
                "after two convolutions and poolings. Enlarge the images, to 4 by 4 pixels at "
                "least, or raise padding."
            )
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, kernel_size=5, padding=padding),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5, padding=padding),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Sequential(
            nn.Linear(16 * height * width, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, n_classes),
        )

    def forward(self, x):
        """Class scores (logits), of shape (n_samples, n_classes), of images in NCHW order."""
        return self.classifier(self.features(x))


def _size_after(size, padding):
    """Pixels that two rounds of a 5-pixel convolution and a pooling by 2 leave of ``size``."""
    for _ in range(2):
        size = (size + 2 * padding - 4) // 2
    return size
