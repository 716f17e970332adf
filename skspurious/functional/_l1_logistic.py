"""Sparse logistic heads: many L1-penalised logistic regressions on the same rows at once."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from skspurious.functional._arguments import code_tensor, count, number, takes, tensor
from skspurious.functional._proximal_steps import AcceleratedSteps, LogisticProblem

__all__ = ["LogisticHeads", "fit_l1_logistic"]

# Features that the first round fits.
_FEW_FEATURES = 64
# As far as this from the optimum single precision leads.
_ROUGH = 1e-3


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


@takes(X=tensor(2), y=code_tensor, C=number, n_classes=count)
def fit_l1_logistic(
    X: Tensor,
    y: Tensor,
    *,
    C: Tensor | float,
    n_classes: int,
    sample_weight: Tensor | None = None,
    penalty: str = "l1",
    center: Tensor | None = None,
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
        Features on one scale, such as standardised ones.
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
    center : tensor of shape (n_rows, n_features) or (n_heads, n_rows, n_features), default=None
        Weights W0 to which the penalty pulls: it is that of W - W0. None is zero. n_rows is 1 for
        two classes, else n_classes.
    start : LogisticHeads, default=None
        Where to start, such as the heads of the next smaller ``C``, or one head for all; None is
        zero.
    tol : float, default=1e-3
        A head is done when its violation of the optimality conditions, see the Notes, is at most
        this.
    max_iter : int, default=5000
        Largest number of iterations.

    Returns
    -------
    heads : LogisticHeads
        With ``coef`` (n_heads, n_rows, n_features), ``intercept`` (n_heads, n_rows),
        ``violation`` and ``n_iter`` (n_heads,); float64.

    Raises
    ------
    ValueError
        If shapes do not fit, a ``C`` is not positive, ``penalty`` is unknown, or a head has
        samples of one class only: its intercept would grow without bound.

    Notes
    -----
    Accelerated proximal gradient descent (FISTA) [1]_ on all heads at once, two matrix products
    an iteration. The step of each head follows the curvature that it meets, and its momentum
    starts anew when it points uphill [2]_.

    Most L1 weights are 0. So it goes in rounds: each fits the weights that are not 0, and the
    features that violate the conditions below most; the last one leaves no feature in
    violation, whether it was in use or not. On a CPU the products are in single precision as
    long as their rounding is small against ``tol``, and in double precision from there on.

    With g the gradient of the second term, an L1-penalised head is optimal where
    :math:`g_j = -\operatorname{sign}(w_j)` for weights that are not 0, :math:`|g_j| \le 1` for
    those that are, and :math:`g = 0` for the intercept; with the L2 penalty where
    :math:`g_j = -w_j`; with a ``center`` w is the difference from it. The violation is the
    largest deviation, for L2 as a share of the largest gradient at zero weights.

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
    problem = LogisticProblem(X, _targets(y, n_classes, X.dtype), (C[:, None] * weight).T, penalty)
    W = torch.zeros(problem.shape, dtype=torch.float64, device=X.device)
    old = torch.zeros_like(W)
    if center is not None:  # what is penalised is W - W0: its logits come on top of those of W0
        old[:-1] = _check_center(center, problem.shape).to(W).movedim(-1, 0)
        problem.offset = problem.to(torch.float64).logits(old)
    if start is not None:
        W = torch.cat([start.coef, start.intercept[..., None]], 2).to(W).permute(2, 0, 1) - old
    fit = _Fit(W, n_iter=torch.zeros(len(C), dtype=torch.int64, device=X.device))
    for part, aim in _stages(problem, tol):
        violation = fit.descend(part, aim, max_iter)
    W = (fit.W + old).permute(1, 2, 0)
    return LogisticHeads(W[..., :-1], W[..., -1], violation.double(), fit.n_iter)


def _stages(problem: LogisticProblem, tol: float) -> Iterator[tuple[LogisticProblem, float]]:
    """Single precision as far as it leads, and where that is not enough double."""
    single = torch.float32
    is_exact = problem.X.device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"
    rounding = problem.rounding() if is_exact else float("inf")
    is_enough = problem.X.dtype == single and rounding < 0.1 * tol
    if is_enough or rounding < 0.1 * _ROUGH:
        yield problem.to(single), tol if is_enough else max(tol, _ROUGH)
    if not is_enough:
        yield problem.to(torch.float64), tol


class _Fit:
    """Weights of the heads on their way to the optimum.

    Parameters
    ----------
    W : tensor of shape (n_features + 1, n_heads, n_rows)
        Weights, last the intercept.
    n_iter : tensor of shape (n_heads,), int64
        Iterations so far.
    """

    def __init__(self, W: Tensor, n_iter: Tensor):
        self.W, self.n_iter = W, n_iter

    def descend(self, problem: LogisticProblem, tol: float, max_iter: int) -> Tensor:
        """Fit all heads; returns their violations.

        A round fits the weights of few features; the next has those as well that the last left
        in violation, until no feature is.
        """
        W, n_before = self.W.to(problem.X), self.n_iter.clone()
        curvature = problem.mean_curvature()
        while True:
            deviation = problem.deviation(W, problem.logits(W)) / problem.unit[:, None]
            violation = deviation.amax((0, 2))
            head = ((violation > tol) & (self.n_iter < max_iter)).nonzero().flatten()
            if len(head) == 0:
                moved = self.n_iter > n_before  # the others keep all their digits
                self.W[:, moved] = W[:, moved].to(self.W)
                return violation
            is_used = (W[:-1] != 0).flatten(1).any(1) | (problem.penalty != "l1")
            is_used |= _worst(deviation[:-1, head].amax((1, 2)), is_used, tol)
            feature = is_used.nonzero().flatten()
            rows = torch.cat([feature, feature.new_tensor([len(W) - 1])])
            part = problem.take(head, feature)
            steps = AcceleratedSteps(part, W[rows][:, head], curvature[head])
            aim = tol if is_used.all() else (0.1 * violation[head].amax()).clamp(min=tol)
            n_left = int(max_iter - self.n_iter[head].amax())
            self.n_iter[head] += steps.run(part, aim, n_left)
            W[rows[:, None], head] = steps.W
            curvature[head] = steps.curvature


def _worst(deviation: Tensor, is_used: Tensor, tol: float) -> Tensor:
    """Features to add: those that violate most, as many as there are already."""
    deviation = torch.where(is_used, 0, deviation)
    n_new = min(max(_FEW_FEATURES, int(is_used.sum())), int((deviation > tol).sum()))
    is_new = torch.zeros_like(is_used)
    is_new[deviation.topk(n_new).indices] = True
    return is_new


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


def _check_center(center: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The center of every head."""
    n_features, n_heads, n_rows = shape[0] - 1, shape[1], shape[2]
    if tuple(center.shape) not in {(n_rows, n_features), (n_heads, n_rows, n_features)}:
        raise ValueError(
            f"center must have shape ({n_rows}, {n_features}) or ({n_heads}, {n_rows}, "
            f"{n_features}); got {tuple(center.shape)}."
        )
    return center.expand(n_heads, n_rows, n_features)


def _targets(y: Tensor, n_classes: int, dtype: torch.dtype) -> Tensor:
    """One column for each row of a head."""
    if n_classes == 2:
        return y[:, None].to(dtype)
    return torch.nn.functional.one_hot(y, n_classes).to(dtype)
