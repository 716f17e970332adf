"""Supervised contrastive loss whose pairs come from classes and clusters."""

import torch
from torch import Tensor
from torch.nn import functional as F

from skspurious.functional._arguments import code_tensor, number, takes, tensor

__all__ = ["contrastive_losses", "contrastive_pairs"]


def contrastive_pairs(
    label: Tensor, cluster: Tensor, *, negatives: str = "class"
) -> tuple[Tensor, Tensor]:
    """Tell which samples attract and which repel each anchor.

    Positives have the anchor's class and another cluster. Negatives share its cluster and have
    another class. A sample is never its own positive or negative.

    Parameters
    ----------
    label : int tensor of shape (n_samples,)
        Class codes.
    cluster : int tensor of shape (n_samples,)
        Cluster codes.
    negatives : {"class", "cluster"}, default="class"
        Which samples of the anchor's cluster repel it: those of other classes, or with "cluster"
        all.

    Returns
    -------
    positive, negative : bool tensors of shape (n_samples, n_samples)
        Row i has the pairs of anchor i.

    Raises
    ------
    ValueError
        If ``negatives`` is unknown.

    Examples
    --------
    >>> import torch
    >>> positive, negative = contrastive_pairs(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]))
    >>> positive.int().tolist()
    [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    >>> negative.int().tolist()
    [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    """
    same_label = label[:, None] == label
    same_cluster = cluster[:, None] == cluster
    positive = same_label & ~same_cluster
    if negatives == "class":
        return positive, same_cluster & ~same_label
    if negatives != "cluster":
        raise ValueError(f"negatives must be 'class' or 'cluster'; got {negatives!r}.")
    itself = torch.eye(len(label), dtype=torch.bool, device=label.device)
    return positive, same_cluster & ~itself


@takes(
    features=tensor(2),
    label=code_tensor,
    cluster=code_tensor,
    temperature=number,
    rows=("features", "label", "cluster"),
)
def contrastive_losses(
    features: Tensor,
    label: Tensor,
    cluster: Tensor,
    *,
    temperature: float = 0.07,
    negatives: str = "class",
) -> tuple[Tensor, Tensor]:
    r"""Supervised contrastive loss of every anchor.

    The positives P of an anchor are the samples of its class in other clusters; its negatives N
    are the samples of its cluster in other classes. With unit vectors :math:`z = h / \|h\|` the
    loss of anchor i is [1]_

    .. math:: \log \sum_{j \in P \cup N} e^{z_i \cdot z_j / t}
              - \frac{1}{|P|} \sum_{p \in P} z_i \cdot z_p / t.

    It is low where samples of a class lie together although their clusters differ, and samples
    of a cluster lie apart where their classes differ.

    Parameters
    ----------
    features : float tensor of shape (n_samples, n_features)
        Only their directions matter. Half precision is computed in float32.
    label : int tensor of shape (n_samples,)
        Class codes.
    cluster : int tensor of shape (n_samples,)
        Cluster codes.
    temperature : float, default=0.07
        t; the smaller, the more the nearest pairs count.
    negatives : {"class", "cluster"}, default="class"
        Which samples of the anchor's cluster are its negatives: those of other classes, or with
        "cluster" all.

    Returns
    -------
    losses : tensor of shape (n_samples,)
        0 where there is no pair of either kind.
    is_anchor : bool tensor of shape (n_samples,)
        Whether the sample has a positive and a negative. The mean over these is the loss of the
        batch.

    Raises
    ------
    ValueError
        If ``negatives`` is unknown.

    References
    ----------
    .. [1] P. Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020. arXiv:2004.11362.

    Examples
    --------
    >>> import torch
    >>> from skspurious.functional import contrastive_losses
    >>> label, cluster = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    >>> by_class = torch.nn.functional.one_hot(label).float()
    >>> by_cluster = torch.nn.functional.one_hot(cluster).float()
    >>> contrastive_losses(by_class, label, cluster, temperature=0.5)[0]
    tensor([0.1269, 0.1269, 0.1269, 0.1269])
    >>> contrastive_losses(by_cluster, label, cluster, temperature=0.5)[0]
    tensor([2.1269, 2.1269, 2.1269, 2.1269])
    """
    if features.dtype in (torch.float16, torch.bfloat16):
        features = features.float()
    with torch.autocast(features.device.type, enabled=False):
        z = _unit_rows(features)
        similarity = z @ z.T / temperature
        positive, negative = contrastive_pairs(label, cluster, negatives=negatives)
        n_positive = positive.sum(1)
        is_anchor = (n_positive > 0) & negative.any(1)
        # Rows without pairs keep all entries, so that their gradient, times 0, is 0 and not NaN.
        counted = positive | negative | ~is_anchor[:, None]
        log_total = similarity.masked_fill(~counted, -torch.inf).logsumexp(1)
        attraction = (positive * similarity).sum(1) / n_positive.clamp(min=1)
        return torch.where(is_anchor, log_total - attraction, 0.0), is_anchor


def _unit_rows(features: Tensor) -> Tensor:
    """Rows of length 1; a row of zeros stays. Neither tiny nor huge rows lose their direction."""
    largest = features.detach().abs().amax(1, keepdim=True)
    features = features / torch.where(largest > 1e-30, largest, 1.0)
    return F.normalize(features, eps=1e-6)
