"""Softmax regression to its minimum, for any convex value of the losses."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LinearHead", "sample_spread"]

MAX_ITER, TOLERANCE = 1000, 1e-7
STRENGTH = 5e-5  # of the default weight decay


class LinearHead:
    """Softmax regression on all samples at once, by L-BFGS in float64.

    Minimised is ``value(losses) + weight_decay / 2 * ||W||²``, where ``value`` is convex and grows
    with every loss, such as their mean; the biases are free. Two classes have one logit z, of
    which the outputs are halves, -z/2 and z/2.

    Parameters
    ----------
    X : tensor of shape (n_samples, n_features), float64
        Overwritten by the features that it is solved in.
    y : tensor of shape (n_samples,), int64
        Classes 0 to n_classes-1.
    share : tensor of shape (n_samples,), float64
        How much each loss counts; of a value that is no sum, how much it does when all are equal.
    n_classes : int
        Number of classes, two or more.
    weight_decay : float, default=None
        None is ``STRENGTH * n_features * spread``, for features as if they were standardised.
    spread : float, default=1.0
        Number of samples over the effective number: large where a few samples count as much as
        all others together.
    criterion : callable, default=None
        Makes losses (n_samples,) of logits (n_samples, n_classes) and y; None is the
        cross-entropy.

    Examples
    --------
    >>> X, y = torch.tensor([[0.0], [1.0], [4.0], [5.0]]), torch.tensor([0, 0, 1, 1])
    >>> share = torch.full((4,), 0.25, dtype=torch.float64)
    >>> head = LinearHead(X.double(), y, share, n_classes=2, weight_decay=0.1)
    >>> losses = head.minimise(lambda losses: (share @ losses, share))
    >>> head.logits().argmax(1)
    tensor([0, 0, 1, 1])
    """

    def __init__(
        self,
        X: Tensor,
        y: Tensor,
        share: Tensor,
        n_classes: int,
        weight_decay: float | None = None,
        spread: float = 1.0,
        criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        share = share / share.sum()
        self.mean = share @ X
        X = X.sub_(self.mean)
        variance = share @ X.square()
        is_constant = variance <= 1e-12 * self.mean.square()  # up to rounding
        variance[is_constant] = 0.0
        if weight_decay is None:
            self.weight_decay = STRENGTH * spread * int((~is_constant).sum())
            penalty = self.weight_decay * variance
        else:
            self.weight_decay = weight_decay
            penalty = torch.full_like(variance, weight_decay)
        # In the features as they are scaled, the loss is about as curved along each of them.
        curvature = variance / 4 + penalty
        self.scale = torch.where(is_constant, 0.0, curvature.rsqrt())
        self.X, self.y = X.mul_(self.scale), y
        halves = torch.tensor([[-0.5, 0.5]])
        # Another loss than the cross-entropy need not depend on differences of logits alone.
        is_one_logit = n_classes == 2 and criterion is None
        self.outputs = (halves if is_one_logit else torch.eye(n_classes)).to(X)
        self.criterion = criterion
        self.target = F.one_hot(y, n_classes)
        self.penalty = penalty * self.outputs[0].square().sum() * self.scale.square()
        self.head = X.new_zeros(len(self.outputs), 1 + X.shape[1])  # bias, then weights
        self.n_iter, self.has_converged = 0, True

    def minimise(
        self, reduce: Callable[[Tensor], tuple[Tensor, Tensor]], tolerance: float = TOLERANCE
    ) -> Tensor:
        """Go on to the minimum; returns the losses there.

        ``reduce`` makes of the losses their value, and its derivative by each of them.
        """

        def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
            head = torch.from_numpy(flat).to(self.X).view_as(self.head)
            value, error = self._derivative(self.logits(head), reduce)
            error = error.mm(self.outputs.T)
            decay = self.penalty * head[:, 1:]
            gradient = torch.cat([error.sum(0)[:, None], error.T.mm(self.X) + decay], 1)
            value = value + (decay * head[:, 1:]).sum() / 2
            return value.item(), gradient.cpu().numpy().ravel()

        found = minimize(
            value_and_gradient,
            self.head.cpu().numpy().ravel(),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": MAX_ITER,
                "maxfun": 2 * MAX_ITER,
                "maxcor": 20,
                "gtol": tolerance,
                "ftol": 1e-6 * tolerance,
            },
        )
        self.n_iter += found.nit
        self.has_converged = found.status != 1  # 1: it ran out of iterations
        self.head = torch.from_numpy(found.x).to(self.X).view_as(self.head)
        return self.losses(self.logits())

    def _derivative(self, logits: Tensor, reduce: Callable) -> tuple[Tensor, Tensor]:
        """Value of the losses, and its derivative by the logits."""
        if self.criterion is None:
            log_p = logits.log_softmax(1)
            value, coefficients = reduce(self._own(log_p))
            return value, log_p.exp_().sub_(self.target).mul_(coefficients[:, None])
        with torch.enable_grad():
            logits = logits.requires_grad_()
            losses = self.losses(logits)
            value, coefficients = reduce(losses.detach())
            return value, torch.autograd.grad((coefficients * losses).sum(), logits)[0]

    def logits(self, head: Tensor | None = None) -> Tensor:
        """Output for each class, (n_samples, n_classes)."""
        head = self.head if head is None else head
        return torch.addmm(head[:, 0], self.X, head[:, 1:].T).mm(self.outputs)

    def losses(self, logits: Tensor) -> Tensor:
        """Loss of each sample."""
        if self.criterion is None:
            return self._own(logits.log_softmax(1))
        return self.criterion(logits, self.y)

    def _own(self, log_p: Tensor) -> Tensor:
        """Cross-entropy of each sample."""
        return log_p.gather(1, self.y[:, None])[:, 0].neg()

    def parameters(self) -> tuple[Tensor, Tensor]:
        """Weights (n_classes, n_features) and biases (n_classes,), for samples as they came."""
        coef = self.head[:, 1:] * self.scale
        bias = self.head[:, 0] - coef @ self.mean
        return self.outputs.T @ coef, self.outputs.T @ bias


def sample_spread(share: Tensor, weight: Tensor, total: Tensor) -> float:
    """Number of samples over the effective number, (sum of shares)² / sum of squared shares.

    A sample of weight 2 is two samples, each with half of its share.

    Parameters
    ----------
    share : tensor of shape (n_samples,)
        How much each sample counts, up to a factor.
    weight : tensor of shape (n_samples,)
        Sample weights, which are a part of the shares.
    total : tensor of shape ()
        Their sum over all samples, those too that have no share.

    Returns
    -------
    spread : float
        1 where all samples of weight 1 count the same.

    Examples
    --------
    >>> one = torch.ones(4)
    >>> share = torch.tensor([4.0, 2.0, 1.0, 1.0])
    >>> sample_spread(one, one, one.sum()), sample_spread(share, one, one.sum())
    (1.0, 1.375)
    """
    squares = (share.square() / weight.clamp(min=1e-300)).sum()
    return (total * squares / share.sum().square()).item()
