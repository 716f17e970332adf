"""EIIL: every class is split by the environments that a reference model is least invariant to."""

from numbers import Integral, Real

import numpy as np

from skspurious.functional._cross_fit import cross_fitted_logits, fit_balanced_logistic
from skspurious.functional._environments import environment_penalty, scale_gradients
from skspurious.group_inference._out_of_fold import OutOfFoldMethod
from skspurious.group_inference._sides import margins_of
from skspurious.utils._parameters import extends
from skspurious.utils._sklearn_compat import Interval


@extends(OutOfFoldMethod)
class EIILGroups(OutOfFoldMethod):
    """Splits every class by the two environments with the largest IRMv1 penalty.

    Environments are inferred that a reference model exploits most [1]_: the assignment q of the
    samples maximises the sum over environments of the squared derivative of their risk by a
    factor on the model's logits,
    ``(sum_i q_i g_i / n)^2 + (sum_i (1 - q_i) g_i / n)^2`` with
    ``g_i = d loss(w f_i, y_i) / dw`` at ``w = 1``. A group is a class in an environment.

    .. versionadded:: 0.1

    Parameters
    ----------
    from_logits : bool, default=False
        Whether the rows are logits of a reference model, a column for each class in their order.
        False fits a logistic regression on the rows, every class counting the same, and takes
        its logits out of fold.
    cross_fit : int, default=5
        Number of folds of the reference model, as in :class:`ErrorGroups`.
    C : float, default=1e-3
        Inverse strength of its L2 regularisation, as in scikit-learn.
    shared parameters

    Attributes
    ----------
    penalty_ : float
        The penalty of the environments that were found.

    See Also
    --------
    SpuriousGroupInferrer : Finds the groups by this or another method.
    ErrorGroups : For two classes the same environments, by another argument.

    Notes
    -----
    The paper climbs to the assignment by gradient steps on soft memberships. The penalty is convex
    in the sum over the first environment, so where it is largest is known: the samples whose
    ``g_i`` is positive are one environment and the others the other one. That is taken here, and
    needs neither steps nor a start; ``g_i = sum_c p_c f_c - f_y`` has a positive sign where the
    logit of the own class is below the mean of all logits under the model. For two classes this
    is where the model is wrong, so that the environments are right and wrong samples; with more,
    a sample can be wrong and yet above the mean.

    The reference of the paper is trained on the samples that it judges, which an early stop keeps
    from being memorised; ours is out of fold. A network is the reference with
    ``make_pipeline(TorchFeatureExtractor(ERMClassifier(), output="logits", cross_fit=5),
    SpuriousGroupInferrer(EIILGroups(from_logits=True)))``. Groups are numbered by the sign,
    negative first. A training row that ``predict`` meets again keeps its group; other rows are
    judged by a model of all rows. ``margin_`` is the margin of the reference model.

    References
    ----------
    .. [1] E. Creager, J.-H. Jacobsen, R. Zemel. "Environment Inference for Invariant Learning."
       ICML 2021. arXiv:2010.07249.

    Examples
    --------
    >>> from skspurious.group_inference import EIILGroups, SpuriousGroupInferrer
    >>> inferrer = SpuriousGroupInferrer(EIILGroups(cross_fit=3, C=1.0), random_state=0)
    >>> X = [[0.0], [1.0], [2.0], [6.5], [5.0], [6.0], [7.0]]  # the fourth is among the others
    >>> inferrer.fit(X, [0, 0, 0, 0, 1, 1, 1]).labels_
    array([0, 0, 0, 1, 2, 2, 2])
    >>> logits = [[3.0, 0.0], [0.0, 1.0], [0.0, 2.0]]
    >>> SpuriousGroupInferrer(EIILGroups(from_logits=True)).fit(logits, [0, 0, 1]).labels_
    array([0, 1, 2])
    """

    _parameter_constraints: dict = {
        **OutOfFoldMethod._parameter_constraints,
        "from_logits": ["boolean"],
        "cross_fit": [Interval(Integral, 2, None, closed="left")],
        "C": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, *, from_logits=False, cross_fit=5, C=1e-3, **shared):
        super().__init__(**shared)
        self.from_logits = from_logits
        self.cross_fit = cross_fit
        self.C = C

    def find(self, X, code, context):
        """Learn the environments of the training rows, and a reference model for new ones."""
        logits = self._refer(X, code, len(context.classes), context.seed)
        self.margin_ = margins_of(logits, code)
        margin = self.measure(logits, code)
        in_second = margin < 0.0
        self.penalty_ = environment_penalty(-margin, in_second)
        self.learn_sides(X, in_second.astype(np.int64), code, context)
        self.remember(X, code, margin)

    def measure(self, logits, code):
        """Own logit minus the mean of all under the model, which is -g."""
        return -scale_gradients(logits, code)

    def _refer(self, X, code, n_classes, seed):
        """Logits of the training rows; coefficients and intercept of a model for new ones."""
        if not self.from_logits:
            self.coef_, self.intercept_ = fit_balanced_logistic(X, code, n_classes, C=self.C)
            params = {"C": self.C, "n_folds": self.cross_fit, "random_state": seed}
            return cross_fitted_logits(X, code, n_classes, **params)
        if X.shape[1] != n_classes:
            raise ValueError(
                f"from_logits=True needs a column for each of the {n_classes} classes, and X has "
                f"{X.shape[1]}: pass logits, as TorchFeatureExtractor(output='logits') gives "
                "them, or set from_logits=False."
            )
        self.coef_, self.intercept_ = np.eye(n_classes), np.zeros(n_classes)
        return X.astype(np.float64)
