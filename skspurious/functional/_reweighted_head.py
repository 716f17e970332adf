"""AFR's weights of samples, and a last layer that is fitted with them near the one before."""

from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

__all__ = ["afr_weights", "fit_head_near"]


def afr_weights(
    p: Tensor,
    y: Tensor,
    gamma: float,
    n_classes: int,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Weights of samples by what a first network makes of them, the same in sum for all classes.

    .. math:: \mu_i \propto \frac{1}{n_{y_i}} \exp(-\gamma\, p_i), \qquad \sum_i \mu_i = 1,

    with :math:`p_i` the probability of the sample's own class and :math:`n_k` the size of class k.

    Parameters
    ----------
    p : tensor of shape (n_samples,)
        Probability that the first network gives to the class of each sample.
    y : tensor of shape (n_samples,), int64
        Classes 0 to n_classes-1.
    gamma : float
        How much more the samples count that the network fits badly; 0 is class balancing alone.
    n_classes : int
        Number of classes; some may have no samples.
    sample_weight : tensor of shape (n_samples,), default=None
        A sample of weight w counts as w samples.

    Returns
    -------
    weights : tensor of shape (n_samples,)
        They sum to 1.

    Examples
    --------
    >>> import math, torch
    >>> from skspurious.functional._reweighted_head import afr_weights
    >>> p, y = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0, 0, 1])
    >>> afr_weights(p, y, gamma=math.log(3), n_classes=2)  # as 1/2 * 1/3, 1/2 and 1/3
    tensor([0.1667, 0.5000, 0.3333])
    """
    count = torch.ones_like(p) if sample_weight is None else sample_weight.to(p)
    size = p.new_zeros(n_classes).index_add_(0, y, count)
    weights = count / size.clamp(min=torch.finfo(p.dtype).tiny)[y] * (-gamma * p).exp()
    return weights / weights.sum()


def fit_head_near(Z: Tensor, y: Tensor, weight: Tensor, start: Tensor, penalty: float) -> Tensor:
    r"""Fit a linear head that is pulled to another one.

    .. math:: \min_W \sum_i \mu_i\, \ell(y_i, W z_i) + \lambda \|W - \hat W\|_2^2

    with the softmax cross-entropy :math:`\ell`.

    Parameters
    ----------
    Z : tensor of shape (n_samples, n_features), float64
        Embeddings, with a column of ones where the head has intercepts.
    y : tensor of shape (n_samples,), int64
        Classes 0 to n_classes-1.
    weight : tensor of shape (n_samples,)
        The weights mu.
    start : tensor of shape (n_classes, n_features)
        The head that it is pulled to.
    penalty : float
        The strength lambda of the pull, positive: then there is one minimum.

    Returns
    -------
    head : tensor of shape (n_classes, n_features)

    Examples
    --------
    >>> import torch
    >>> from skspurious.functional._reweighted_head import fit_head_near
    >>> Z, y = torch.eye(2).double(), torch.tensor([0, 1])
    >>> start = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double()
    >>> fit_head_near(Z, y, torch.ones(2).double(), start, penalty=1e6).round()
    tensor([[1., 2.],
            [3., 4.]], dtype=torch.float64)
    """
    before = Z @ start.T  # logits
    target = torch.nn.functional.one_hot(y, len(start)).to(Z)

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        change = torch.from_numpy(flat).to(Z.device).reshape(start.shape)
        log_p = (before + Z @ change.T).log_softmax(1)
        loss = -(weight * (target * log_p).sum(1)).sum() + penalty * change.square().sum()
        residual = weight[:, None] * (log_p.exp() - target)
        gradient = residual.T @ Z + 2 * penalty * change
        return loss.item(), gradient.cpu().numpy().ravel()

    options: dict[str, Any] = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-14, "gtol": 1e-7}
    found = minimize(
        loss_and_gradient, np.zeros(start.numel()), jac=True, method="L-BFGS-B", options=options
    )
    return start + torch.from_numpy(found.x).to(Z.device).reshape(start.shape)
