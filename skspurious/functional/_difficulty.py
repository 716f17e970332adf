"""Difficulty of samples, and which samples a share of it prunes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from skspurious.functional._arguments import array, code_tensor, codes, number, takes, tensor
from skspurious.functional._kmeans_1d import kmeans_1d
from skspurious.functional._silhouette import silhouette_samples_1d

__all__ = [
    "DifficultySplit",
    "el2n",
    "forgetting_counts",
    "gradient_norms",
    "last_layer_gradient_norms",
    "loss_difficulty",
    "select_kept",
    "split_difficulty",
]

_MAX_GRADIENTS = 2**26  # numbers of per-sample gradients held at a time


# ------------------------------------------------------------------------- scores


@takes(logits=tensor(2), label=code_tensor, rows=("logits", "label"))
def el2n(logits: Tensor, label: Tensor) -> Tensor:
    r"""Norm of the error :math:`\lVert p(x) - y \rVert_2` of each sample (EL2N) [1]_.

    0 for a certain and right prediction, :math:`\sqrt 2` for a certain and wrong one. For two
    classes it is :math:`\sqrt 2 (1 - p_y)`, so that it ranks samples as their losses do.

    Parameters
    ----------
    logits : tensor of shape (n_samples, n_classes)
        Outputs of the network, before the softmax.
    label : tensor of shape (n_samples,), int64
        Class of every sample, 0 to n_classes-1.

    Returns
    -------
    score : tensor of shape (n_samples,)

    References
    ----------
    .. [1] M. Paul, S. Ganguli, G. K. Dziugaite, "Deep Learning on a Data Diet: Finding Important
       Examples Early in Training", NeurIPS 2021. arXiv:2107.07075.

    Examples
    --------
    >>> logits = torch.tensor([[9.0, -9.0], [0.0, 0.0], [-9.0, 9.0]])
    >>> el2n(logits, torch.tensor([0, 0, 0]))
    tensor([2.1538e-08, 7.0711e-01, 1.4142e+00])
    """
    # By the probabilities of the other classes: 1 - p_y would round to 0 where p_y is near 1.
    others = logits.softmax(1).scatter(1, label[:, None], 0.0)
    return (others.sum(1) ** 2 + (others**2).sum(1)).sqrt().clamp(max=2**0.5)


def loss_difficulty(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of each sample.

    Parameters
    ----------
    logits : tensor of shape (n_samples, n_classes)
        Outputs of the network, before the softmax.
    label : tensor of shape (n_samples,), int64
        Class of every sample, 0 to n_classes-1.

    Returns
    -------
    score : tensor of shape (n_samples,)

    Examples
    --------
    >>> loss_difficulty(torch.zeros(1, 2), torch.tensor([0]))
    tensor([0.6931])
    """
    return F.cross_entropy(logits, label, reduction="none")


@takes(
    logits=tensor(2), label=code_tensor, embedding=tensor(2), rows=("logits", "label", "embedding")
)
def last_layer_gradient_norms(
    logits: Tensor, label: Tensor, embedding: Tensor, *, has_bias: bool = True
) -> Tensor:
    r"""Norm of the gradient of each sample's loss by the last layer's parameters (its GraNd).

    The gradient by the weights is the outer product of :math:`p - y` with the layer's input, the
    gradient by the bias is :math:`p - y`: so no backward pass is needed.

    Parameters
    ----------
    logits : tensor of shape (n_samples, n_classes)
        Outputs of the layer.
    label : tensor of shape (n_samples,), int64
        Class of every sample, 0 to n_classes-1.
    embedding : tensor of shape (n_samples, n_features)
        Inputs of the layer.
    has_bias : bool, default=True
        Whether the layer has a bias.

    Returns
    -------
    score : tensor of shape (n_samples,)

    Examples
    --------
    >>> logits, label = torch.zeros(1, 2), torch.tensor([0])
    >>> last_layer_gradient_norms(logits, label, torch.tensor([[3.0, 4.0]]), has_bias=False)
    tensor([3.5355])
    """
    size = (embedding.to(logits.dtype) ** 2).sum(1) + float(has_bias)
    return el2n(logits, label) * size.sqrt()


@takes(label=code_tensor)
def gradient_norms(module: nn.Module, inputs: Any, label: Tensor) -> Tensor:
    """Norm of the gradient of each sample's loss by all trainable parameters (GraNd) [1]_.

    Parameters
    ----------
    module : nn.Module
        The network, in the mode in which it is to be used; in training mode, batch normalisation
        makes the samples depend on each other.
    inputs : tensor or dict of tensors, with n_samples rows
        Inputs of the network; a dict has them by the names of the network's arguments.
    label : tensor of shape (n_samples,), int64
        Class of every sample, 0 to n_classes-1.

    Returns
    -------
    score : tensor of shape (n_samples,)

    Raises
    ------
    TypeError
        If `inputs` is no tensor and no dict.
    ValueError
        If lengths differ.

    References
    ----------
    .. [1] M. Paul, S. Ganguli, G. K. Dziugaite, "Deep Learning on a Data Diet: Finding Important
       Examples Early in Training", NeurIPS 2021. arXiv:2107.07075.

    Examples
    --------
    >>> layer = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.zeros_(layer.weight)
    >>> gradient_norms(layer, torch.tensor([[3.0, 4.0]]), torch.tensor([0]))
    tensor([3.5355])
    """
    if not torch.is_tensor(inputs) and not isinstance(inputs, Mapping):
        raise TypeError(
            f"inputs must be a tensor or a dict of tensors; got {type(inputs).__name__}."
        )
    if torch.is_tensor(inputs) and len(inputs) != len(label):
        raise ValueError(f"inputs has {len(inputs)} rows for {len(label)} labels in label.")
    parameters = {k: p.detach() for k, p in module.named_parameters() if p.requires_grad}
    frozen = {k: p.detach() for k, p in module.named_parameters() if not p.requires_grad}
    frozen |= {k: b.detach() for k, b in module.named_buffers()}

    def loss(trained: dict[str, Tensor], x: Any, y: Tensor) -> Tensor:
        if isinstance(x, Mapping):
            x = {k: v.unsqueeze(0) for k, v in x.items()}
            output = functional_call(module, {**frozen, **trained}, (), x)
        else:
            output = functional_call(module, {**frozen, **trained}, (x.unsqueeze(0),))
        output = output.logits if hasattr(output, "logits") else output
        return F.cross_entropy(output.float(), y.unsqueeze(0))

    def norm(x: Any, y: Tensor) -> Tensor:
        gradients = grad(loss)(parameters, x, y)
        return torch.stack([(g.float() ** 2).sum() for g in gradients.values()]).sum().sqrt()

    size = sum(p.numel() for p in parameters.values())
    return vmap(norm, chunk_size=max(1, _MAX_GRADIENTS // size))(
        dict(inputs) if isinstance(inputs, Mapping) else inputs, label
    )


@takes(correct=array(2))
def forgetting_counts(correct: np.ndarray) -> np.ndarray:
    """Count how often each sample was forgotten: right after an epoch, wrong after the next [1]_.

    Parameters
    ----------
    correct : ndarray of shape (n_epochs, n_samples), bool
        Whether the network was right, after every epoch.

    Returns
    -------
    count : ndarray of shape (n_samples,), int64
        A sample that was never right gets n_epochs, more than any other can have.

    References
    ----------
    .. [1] M. Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network
       Learning", ICLR 2019. arXiv:1812.05159.

    Examples
    --------
    >>> forgetting_counts(np.array([[1, 1, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0]], dtype=bool))
    array([2, 0, 4])
    """
    correct = np.asarray(correct, dtype=bool)
    count = (correct[:-1] & ~correct[1:]).sum(axis=0)
    return np.where(correct.any(axis=0), count, len(correct))


# ------------------------------------------------------------------------- selection


@takes(score=array(1), fraction=number, stratum=codes(None))
def select_kept(
    score: np.ndarray,
    fraction: float,
    *,
    stratum: np.ndarray | None = None,
    order: str = "hardest",
    random_state: int = 0,
) -> np.ndarray:
    """Choose which samples are kept when a share of every stratum is pruned.

    Of a stratum of n samples, ``ceil(fraction * n)`` are pruned. A larger fraction prunes all that
    a smaller one does. Among samples with equal scores the first counts as the hardest, so that
    the hardest half and the easiest half have no sample in common.

    Parameters
    ----------
    score : ndarray of shape (n_samples,)
        Difficulty of every sample, finite.
    fraction : float
        Share that is pruned, in [0, 1).
    stratum : ndarray of shape (n_samples,), int, default=None
        Stratum of every sample, such as its class; negative ids are never pruned. None makes
        all samples one.
    order : {"hardest", "easiest", "random"}, default="hardest"
        What is pruned first.
    random_state : int, default=0
        Seed of the random order.

    Returns
    -------
    keep : ndarray of shape (n_samples,), bool

    Raises
    ------
    ValueError
        If a score is not finite, ``fraction`` is not in [0, 1), ``order`` is unknown, or
        ``stratum`` does not have an id for every sample.

    Examples
    --------
    >>> score = np.array([0.1, 0.9, 0.5, 0.3, 0.2])
    >>> select_kept(score, 0.3, stratum=np.array([0, 0, 0, 1, 1]))
    array([ True, False,  True, False,  True])
    """
    score = np.asarray(score, dtype=np.float64)
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction must be in [0, 1), for instance 0.1; got {fraction}.")
    if order not in ("hardest", "easiest", "random"):
        raise ValueError(f"order={order!r}: use 'hardest', 'easiest' or 'random'.")
    n = len(score)
    stratum = np.zeros(n, dtype=np.int64) if stratum is None else np.asarray(stratum)
    if stratum.shape != score.shape:
        raise ValueError(f"stratum has shape {stratum.shape} for {n} samples: give one id each.")
    key = np.random.default_rng(random_state).random(n) if order == "random" else -score
    by_stratum = np.lexsort((key, stratum))  # stable: of equal keys the lower index first
    _, start, size = np.unique(stratum[by_stratum], return_index=True, return_counts=True)
    rank = np.arange(n) - np.repeat(start, size)
    if order == "easiest":
        rank = np.repeat(size, size) - 1 - rank
    # 0.07 * 100 is 7.000000000000001: rounding errors must not prune one sample more.
    n_pruned = np.ceil(np.round(fraction * size, 9)).astype(np.int64)
    keep = np.empty(n, dtype=bool)
    keep[by_stratum] = rank >= np.repeat(n_pruned, size)
    return keep | (stratum < 0)


class DifficultySplit(NamedTuple):
    """The best two clusters of the difficulty of some samples.

    Attributes
    ----------
    is_hard : ndarray of shape (n_samples,), bool
        The cluster of the harder samples.
    silhouette : float
        Mean of the two clusters' mean silhouettes; -1 where all scores are equal.
    """

    is_hard: np.ndarray
    silhouette: float


def split_difficulty(score: np.ndarray) -> DifficultySplit:
    """Split samples into easy and hard ones by 2-means, and say how well they separate.

    The silhouette is the mean over the two clusters, not over the samples. Most samples of a
    network that does well have scores near 0; they would make the mean over samples high,
    wherever the few others lie.

    Parameters
    ----------
    score : ndarray of shape (n_samples,)
        Difficulty of every sample.

    Returns
    -------
    split : DifficultySplit

    Examples
    --------
    >>> split = split_difficulty(np.array([0.1, 0.1, 0.2, 1.3, 1.4]))
    >>> split.is_hard, round(split.silhouette, 2)
    (array([False, False, False,  True,  True]), 0.93)
    """
    score = np.asarray(score, dtype=np.float64)
    if len(np.unique(score)) < 2:
        return DifficultySplit(np.zeros(len(score), dtype=bool), -1.0)
    easy, hard = kmeans_1d(score, 2)[1]
    is_hard = score > (easy + hard) / 2
    silhouette = silhouette_samples_1d(score, is_hard.astype(np.int64))
    macro = (silhouette[is_hard].mean() + silhouette[~is_hard].mean()) / 2
    return DifficultySplit(is_hard, float(macro))
