"""XRM: every class is split by the mistakes that twin models make on each other's half."""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from skspurious.functional._cross_fit import cross_fit_folds
from skspurious.functional._cross_mistakes import fit_linear_twins
from skspurious.group_inference._out_of_fold import OutOfFoldMethod
from skspurious.group_inference._sides import margins_of
from skspurious.utils._parameters import extends
from skspurious.utils._sklearn_compat import Interval


@extends(OutOfFoldMethod)
class XRMGroups(OutOfFoldMethod):
    """Splits every class by the mistakes of twin heads that learn from each other's mistakes.

    The rows are shared out at random to two linear heads. In every step each head descends the
    class-balanced loss of its own rows, and a row's label flips to the class that the other head,
    which has never been trained on it, predicts, with probability ``(p_max - 1/C) C / (C - 1)``.
    So both are driven to the rule that is easy and shared, and away from what they would have to
    memorise. In the end a sample is odd where the head that has not seen it is wrong about its
    true class [1]_.

    .. versionadded:: 0.1

    Parameters
    ----------
    n_steps : int, default=300
        Steps of stochastic gradient descent.
    batch_size : int, default=1024
        Rows of a step, of both halves.
    lr : float, default=0.01
        Learning rate, on standardised features.
    momentum : float, default=0.9
        Momentum of the descent.
    flip_labels : bool, default=True
        Whether labels flip. False is errors out of fold, with two folds.
    n_runs : int, default=1
        Runs with other halves and draws, of which the one with the most flipped labels is kept,
        as in the paper.
    shared parameters

    Attributes
    ----------
    flip_counts_ : ndarray of shape (n_runs,)
        Samples of each run whose label differs in the end from the true one.
    flipped_mask_ : ndarray of shape (n_samples,), bool
        Which they are, in the run that was kept.

    See Also
    --------
    SpuriousGroupInferrer : Finds the groups by this or another method.
    ErrorGroups : Errors of one model out of fold, without flips.
    skspurious.mitigation.XRMClassifier : The same with networks as twins, then GroupDRO.

    Notes
    -----
    It needs a shortcut that is the easy rule of a linear head. Where it is not, as in embeddings
    of birds by a network that knows birds, the mistakes are hard samples, and groups of them
    train a worse network than none. Many flips are no proof of a shortcut: the more
    steps at a high rate, the more labels flip, and the rule of the most flips then keeps the worst
    run. Hence ``n_runs=1``.

    Groups are numbered right before wrong. A training row that ``predict`` meets again keeps the
    group that the head of the other half gave it; all other rows are judged by the mean of both
    heads' logits. The halves are stratified by class, copies of a row are in one of them, and
    nothing depends on the order of the rows. The heads start from zero, where nothing flips; a
    sample keeps the weight of its true class when its label flips.

    References
    ----------
    .. [1] M. Pezeshki et al. "Discovering Environments with XRM." ICML 2024. arXiv:2309.16748.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.group_inference import SpuriousGroupInferrer, XRMGroups
    >>> y = np.arange(200) % 2
    >>> place = np.where(np.arange(200) < 20, 1 - y, y)     # of 200, 20 are elsewhere
    >>> rng = np.random.default_rng(0)
    >>> X = np.stack([4 * place, y / 2], axis=1) + rng.normal(scale=0.5, size=(200, 2))
    >>> inferrer = SpuriousGroupInferrer(XRMGroups(n_steps=100), random_state=0).fit(X, y)
    >>> inferrer.cluster_sizes_
    array([90, 10, 90, 10])
    >>> inferrer.predict([[4.0, 0.0], [0.0, 0.0]], y=[0, 0])
    array([1, 0])
    """

    _parameter_constraints: dict = {
        **OutOfFoldMethod._parameter_constraints,
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "flip_labels": ["boolean"],
        "n_runs": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        n_steps=300,
        batch_size=1024,
        lr=0.01,
        momentum=0.9,
        flip_labels=True,
        n_runs=1,
        **shared,
    ):
        super().__init__(**shared)
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.lr = lr
        self.momentum = momentum
        self.flip_labels = flip_labels
        self.n_runs = n_runs

    def find(self, X, code, context):
        """Learn the margins by the twin that has not seen a row, and the twins' mean for others."""
        n_classes = len(context.classes)
        seeds = np.random.default_rng(context.seed).integers(2**31 - 1, size=self.n_runs).tolist()
        runs = [self._run(X, code, n_classes, seed) for seed in seeds]
        self.flip_counts_ = np.array([is_flipped.sum() for *_, is_flipped in runs])
        logits, coef, intercept, self.flipped_mask_ = runs[self.flip_counts_.argmax()]
        self.coef_, self.intercept_ = coef.mean(axis=0), intercept.mean(axis=0)
        self.margin_ = margins_of(logits, code)
        self.learn_sides(X, (self.margin_ < 0.0).astype(np.int64), code, context)
        self.remember(X, code, self.margin_)

    def _run(self, X, code, n_classes, seed):
        """Held-out logits, coefficients and intercepts of both twins, and which labels flipped."""
        order, half = cross_fit_folds(X, code, 2, seed)
        # Classes as they first appear in this order: their names change nothing.
        first = np.unique(code[order], return_index=True)[1]
        number = np.argsort(np.argsort(first))
        y = number[code[order]]
        scaler = StandardScaler(copy=False)
        rows = scaler.fit_transform(X[order])
        coef, intercept, label = fit_linear_twins(
            torch.from_numpy(rows),
            torch.from_numpy(y),
            torch.from_numpy(half),
            n_classes,
            lr=self.lr,
            momentum=self.momentum,
            n_steps=self.n_steps,
            batch_size=self.batch_size,
            flips=self.flip_labels,
            random_state=seed,
        )
        # For rows that are not standardised.
        coef = coef.double().numpy()[:, :, number] / scaler.scale_[:, None]
        intercept = intercept.double().numpy()[:, number] - scaler.mean_ @ coef
        logits, is_flipped = np.empty((len(X), n_classes)), np.empty(len(X), dtype=bool)
        for k in (0, 1):
            held_out = order[half != k]
            logits[held_out] = X[held_out] @ coef[k] + intercept[k]
        is_flipped[order] = label.numpy() != y
        return logits, coef, intercept, is_flipped
