"""Sparse logistic heads: many L1-penalised logistic regressions on the same rows at once."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["LogisticHeads", "fit_l1_logistic"]

# Iterations between two looks at the optimality conditions.
_CHECK_EVERY = 10
# By this the assumed curvature falls after every step that was short enough.
_RELAX = 0.95


class LogisticHeads(NamedTuple):
    """Fitted heads. Of two classes a head has one row, which gives the logit of the second.

    Attributes
    ----------
    coef : tensor of shape (n_heads, n_rows, n_features)
        Weights.
    intercept : tensor of shape (n_heads, n_rows)
        Intercepts.
    violation : tensor of shape (n_heads,)
        How far the head is from the optimality conditions.
    n_iter : tensor of shape (n_heads,), int64
        Iterations that the head took.

    Examples
    --------
    >>> import torch
    >>> from skspurious.functional import fit_l1_logistic
    >>> X, y = torch.eye(4).double(), torch.tensor([0, 1, 0, 1])
    >>> fit_l1_logistic(X, y, C=torch.tensor([1.0, 2.0]), n_classes=2).coef.shape
    torch.Size([2, 1, 4])
    """

    coef: Tensor
    intercept: Tensor
    violation: Tensor
    n_iter: Tensor


def fit_l1_logistic(
    X: Tensor,
    y: Tensor,
    *,
    C: Tensor | float,
    n_classes: int,
    sample_weight: Tensor | None = None,
    penalty: str = "l1",
    start: LogisticHeads | None = None,
    tol: float = 1e-3,
    max_iter: int = 5000,
) -> LogisticHeads:
    r"""Fit logistic heads that differ in the weights of the rows and in the penalty.

    Head h minimises the objective of scikit-learn, with a sum over samples, not a mean, and
    with an intercept b that is not penalised:

    .. math:: \|W\|_1 + C_h \sum_i s_{hi}\, \ell(y_i, W x_i + b),

    with the softmax cross-entropy :math:`\ell`; for two classes with one logit for the second
    class. ``penalty="l2"`` has :math:`\frac{1}{2} \|W\|_2^2` instead.

    Parameters
    ----------
    X : tensor of shape (n_samples, n_features)
        Features on one scale, such as standardised ones; float64 is recommended.
    y : tensor of shape (n_samples,), int64
        Classes 0 to n_classes-1.
    C : float or tensor of shape (n_heads,)
        Inverse strength of the penalty, positive.
    n_classes : int
        At least 2.
    sample_weight : tensor of shape (n_heads, n_samples), default=None
        Weight of each row for each head; 0 leaves it out. None is one head with weights of 1,
        or as many as ``C`` has values.
    penalty : {"l1", "l2"}, default="l1"
        Penalty of the weights.
    start : LogisticHeads, default=None
        Where to start, such as the heads of the next smaller ``C``; None is zero.
    tol : float, default=1e-3
        A head is done when its violation of the optimality conditions, see the Notes, is at most
        this.
    max_iter : int, default=5000
        Largest number of iterations.

    Returns
    -------
    heads : LogisticHeads
        With ``coef`` (n_heads, n_rows, n_features), ``intercept`` (n_heads, n_rows),
        ``violation`` and ``n_iter`` (n_heads,); n_rows is 1 for two classes, else n_classes.

    Raises
    ------
    ValueError
        If shapes do not fit, a ``C`` is not positive, or a head has samples of one class only:
        its intercept would grow without bound.

    Notes
    -----
    Accelerated proximal gradient descent (FISTA) [1]_ on all heads at once, two matrix products
    an iteration. The step of each head follows the curvature that it meets, and its momentum
    starts anew when it points uphill [2]_. Heads that are done leave the batch.

    With g the gradient of the second term, an L1-penalised head is optimal where
    :math:`g_j = -\operatorname{sign}(w_j)` for weights that are not 0, :math:`|g_j| \le 1` for
    those that are, and :math:`g = 0` for the intercept; with the L2 penalty where
    :math:`g_j = -w_j`. The violation is the largest deviation, for L2 as a share of the largest
    gradient at zero weights.

    References
    ----------
    .. [1] A. Beck, M. Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm for Linear
       Inverse Problems", SIAM Journal on Imaging Sciences 2(1), 2009.
    .. [2] B. O'Donoghue, E. Candès, "Adaptive Restart for Accelerated Gradient Schemes",
       Foundations of Computational Mathematics 15, 2015. arXiv:1204.3982.

    Examples
    --------
    >>> import torch
    >>> from skspurious.functional import fit_l1_logistic
    >>> X = torch.tensor([[-1.0, 0.1], [-0.5, -0.1], [0.5, -0.1], [1.0, 0.1]]).double()
    >>> heads = fit_l1_logistic(X, torch.tensor([0, 0, 1, 1]), C=2.0, n_classes=2)
    >>> (heads.coef[0, 0] != 0).tolist()  # the second feature is of no use
    [True, False]
    """
    C, weight = _check_heads(X, y, C, n_classes, sample_weight)
    if penalty not in ("l1", "l2"):
        raise ValueError(f"penalty must be 'l1' or 'l2'; got {penalty!r}.")
    used = (weight > 0).any(0)
    if not used.all():  # rows that no head looks at
        X, y, weight = X[used], y[used], weight[:, used]
    problem = _Problem(X, _targets(y, n_classes, X.dtype), (C[:, None] * weight).T, penalty)
    n_heads, n_rows = len(C), problem.target.shape[1]
    fitted = LogisticHeads(
        X.new_zeros(n_heads, n_rows, X.shape[1]),
        X.new_zeros(n_heads, n_rows),
        X.new_zeros(n_heads),
        torch.zeros(n_heads, dtype=torch.int64, device=X.device),
    )
    head = torch.arange(n_heads, device=X.device)
    state = _State.start(problem, start)
    for iteration in range(max_iter + 1):
        if iteration % _CHECK_EVERY == 0 or iteration == max_iter:
            violation = problem.violation(state.W, state.F)
            is_done = (violation <= tol) | (iteration == max_iter)
            if is_done.any():
                rows = head[is_done]
                W = state.W[:, is_done].permute(1, 2, 0)
                fitted.coef[rows], fitted.intercept[rows] = W[..., :-1], W[..., -1]
                fitted.violation[rows] = violation[is_done]
                fitted.n_iter[rows] = iteration
                head = head[~is_done]
                problem, state = problem.take(~is_done), state.take(~is_done)
                if len(head) == 0:
                    break
        state.step(problem)
    return fitted


class _Problem:
    """The heads' objectives. All heads are the columns of one matrix: samples come first."""

    def __init__(
        self, X: Tensor, target: Tensor, scale: Tensor, penalty: str, unit: Tensor | None = None
    ):
        self.X = X  # (n_samples, n_features)
        self.target = target  # (n_samples, n_rows)
        self.scale = scale  # (n_samples, n_heads): C times the weights of the samples
        self.penalty = penalty
        self.unit = self._unit() if unit is None else unit  # (n_heads,)

    def take(self, keep: Tensor) -> "_Problem":
        """Some of the heads."""
        return _Problem(self.X, self.target, self.scale[:, keep], self.penalty, self.unit[keep])

    def logits(self, W: Tensor) -> Tensor:
        """Logits (n_samples, n_heads, n_rows) of weights (n_features + 1, n_heads, n_rows)."""
        return (self.X @ W[:-1].flatten(1)).reshape(len(self.X), *W.shape[1:]) + W[-1]

    def residual(self, F: Tensor) -> Tensor:
        """Derivative of the loss by the logits, of the shape of F."""
        p = F.sigmoid() if F.shape[2] == 1 else F.softmax(2)
        return self.scale[:, :, None] * (p - self.target[:, None])

    def gradient(self, residual: Tensor) -> Tensor:
        """Derivative by weights and intercept, (n_features + 1, n_heads, n_rows)."""
        G = (self.X.T @ residual.flatten(1)).reshape(-1, *residual.shape[1:])
        return torch.cat([G, residual.sum(0, keepdim=True)])

    def shrink(self, W: Tensor, step: Tensor) -> Tensor:
        """Proximal step of the penalty; the intercept, the last feature, has none."""
        step = step[:, None]
        if self.penalty == "l1":
            w = W[:-1].sign() * (W[:-1].abs() - step).clamp(min=0)
        else:
            w = W[:-1] / (1 + step)
        return torch.cat([w, W[-1:]])

    def violation(self, W: Tensor, F: Tensor) -> Tensor:
        """Largest deviation from the optimality conditions."""
        G = self.gradient(self.residual(F))
        g, w = G[:-1], W[:-1]
        if self.penalty == "l1":
            at_zero = (g.abs() - 1).clamp(min=0)
            deviation = torch.where(w == 0, at_zero, (g + w.sign()).abs())
        else:
            deviation = (g + w).abs()
        return torch.cat([deviation, G[-1:].abs()]).amax((0, 2)) / self.unit

    def _unit(self) -> Tensor:
        """What a violation is measured in: for L1 the slope of the penalty, which is 1."""
        if self.penalty == "l1":
            return torch.ones_like(self.scale[0])
        zero = self.scale.new_zeros(*self.scale.shape, self.target.shape[1])
        return self.gradient(self.residual(zero)).abs().amax((0, 2)).clamp(min=1e-12)


class _State:
    """Weights of the heads, with their momentum and their steps."""

    def __init__(
        self, W: Tensor, F: Tensor, W_old: Tensor, F_old: Tensor, curvature: Tensor, t: Tensor
    ):
        self.W, self.F = W, F  # weights, last the intercept, and their logits
        self.W_old, self.F_old = W_old, F_old  # those of the iteration before
        self.curvature = curvature  # (n_heads,): the inverse of the step
        self.t = t  # (n_heads,): 1 has no momentum

    @classmethod
    def start(cls, problem: _Problem, heads: LogisticHeads | None) -> "_State":
        scale, n_rows = problem.scale, problem.target.shape[1]
        if heads is None:
            W = scale.new_zeros(problem.X.shape[1] + 1, scale.shape[1], n_rows)
        else:
            W = torch.cat([heads.coef, heads.intercept[..., None]], 2).permute(2, 0, 1)
        F = problem.logits(W)
        # Of the diagonal of the Hessian the mean: steps too long are found and taken back.
        diagonal = 0.25 * scale * (1 + problem.X.square().sum(1, keepdim=True))
        curvature = diagonal.sum(0) / len(W)
        return cls(W, F, W, F, curvature, torch.ones_like(curvature))

    def take(self, keep: Tensor) -> "_State":
        """Some of the heads."""
        return _State(
            self.W[:, keep],
            self.F[:, keep],
            self.W_old[:, keep],
            self.F_old[:, keep],
            self.curvature[keep],
            self.t[keep],
        )

    def step(self, problem: _Problem) -> None:
        """One accelerated proximal step; a head whose step was too long stays where it is."""
        t = 0.5 * (1 + (1 + 4 * self.t.square()).sqrt())
        momentum = ((self.t - 1) / t)[:, None]
        Y = self.W + momentum * (self.W - self.W_old)
        FY = self.F + momentum * (self.F - self.F_old)  # logits are linear in the weights
        residual = problem.residual(FY)
        length = 1 / self.curvature
        W = problem.shrink(Y - length[:, None] * problem.gradient(residual), length)
        F = problem.logits(W)
        # The step is short enough where the gradient changes by at most `curvature` times it.
        moved = (W - Y).square().sum((0, 2))
        bent = ((problem.residual(F) - residual) * (F - FY)).sum((0, 2))
        is_short = bent <= self.curvature * moved
        is_uphill = ((Y - W) * (W - self.W)).sum((0, 2)) > 0
        accept = is_short[:, None]
        self.W_old = torch.where(accept, self.W, self.W_old)
        self.F_old = torch.where(accept, self.F, self.F_old)
        self.W, self.F = torch.where(accept, W, self.W), torch.where(accept, F, self.F)
        self.t = torch.where(is_short, torch.where(is_uphill, 1.0, t), self.t)
        needed = bent / moved.clamp(min=1e-300)
        self.curvature = torch.where(
            is_short, _RELAX * self.curvature, torch.maximum(2 * self.curvature, needed)
        )


def _check_heads(
    X: Tensor, y: Tensor, C: Tensor | float, n_classes: int, sample_weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """C (n_heads,) and weights (n_heads, n_samples)."""
    if X.ndim != 2 or y.shape != X.shape[:1]:
        raise ValueError(
            f"X must have shape (n_samples, n_features) and y (n_samples,); got "
            f"{tuple(X.shape)} and {tuple(y.shape)}."
        )
    C = torch.as_tensor(C, dtype=X.dtype, device=X.device)
    if not (C > 0).all() or C.ndim > 1:
        raise ValueError(f"C must be one positive number or one for each head; got {C.tolist()}.")
    weight = X.new_ones(1, len(X)) if sample_weight is None else sample_weight.to(X)
    if weight.ndim != 2 or weight.shape[1] != len(X):
        raise ValueError(
            f"sample_weight must have shape (n_heads, {len(X)}); got {tuple(weight.shape)}."
        )
    if C.ndim == 1 and len(weight) not in (1, len(C)):
        raise ValueError(f"C has {len(C)} values for the weights of {len(weight)} heads.")
    n_heads = len(C) if C.ndim == 1 else len(weight)
    C, weight = C.expand(n_heads), weight.expand(n_heads, -1)
    mass = X.new_zeros(n_heads, n_classes).index_add_(1, y, weight)
    if ((mass > 0).sum(1) < 2).any():
        raise ValueError("a head needs samples, of positive weight, of at least two classes.")
    return C, weight


def _targets(y: Tensor, n_classes: int, dtype: torch.dtype) -> Tensor:
    """One column for each row of a head."""
    if n_classes == 2:
        return y[:, None].to(dtype)
    return torch.nn.functional.one_hot(y, n_classes).to(dtype)
