"""ViewJury: groups from what several views of a sample say of its class."""

from numbers import Integral, Real

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from skspurious.data import unpack_groups
from skspurious.data._samples import n_rows
from skspurious.functional._jury import balanced_hits, jury_scores, view_weights
from skspurious.group_inference._effect import effect_of
from skspurious.group_inference._evidence import Nuisance
from skspurious.group_inference._found_evidence import CarriesEvidence
from skspurious.group_inference._judge import Judge, hear, mean_of_copies
from skspurious.group_inference._keys import sample_keys
from skspurious.group_inference._named_views import CLEAN, resolve_views
from skspurious.group_inference._samples import (
    AsIs,
    GroupCarrier,
    encode_classes,
    further_rows,
    rows_of_fit,
    table_of_numbers,
)
from skspurious.group_inference._sides import margins_of, parts_of_predictions, taken_for
from skspurious.utils._fitting import _fit_context
from skspurious.utils._random import draw_seed
from skspurious.utils._rows import as_labels, check_is_rows
from skspurious.utils._sklearn_compat import Interval, StrOptions
from skspurious.views._standard import is_table


class ViewJury(CarriesEvidence, GroupCarrier, AsIs):
    """Find groups by a jury of views, each of which says the class without seeing the object.

    A view of a sample that lacks the object (its border, its colours, its pieces in disorder,
    one column) can know the class only by a shortcut. Of every view a model learns the class, out
    of fold; the models vote, each with a weight by how much it knows. What the jury takes a
    sample for is its side: the samples of a class that it takes for another one are the minority
    of the class. Nobody has to name the shortcut, and no group label is needed.

    .. versionadded:: 0.1

    Parameters
    ----------
    views : "auto", dict, or list of (str, view), default="auto"
        Views by their names. A view is a transformer, whose output a linear model is fitted on; a
        classifier or a Pipeline that ends in one; or columns of a table, as a list of names or
        positions, a slice or a mask: a linear model of numbers, boosted trees where there are
        categories or missing values. Dates are days. "auto" is the standard set for the kind of
        samples, see :func:`~skspurious.views.standard_views`.
    clean : "auto", view or None, default="auto"
        What looks at the samples as they are. It votes too, with at most the weight of the best
        view. "auto" belongs to the standard set; with `views` of your own it is None.
    extractor : transformer, default=None
        With ``views="auto"``, what makes numbers of pictures and texts, such as a
        ``TorchFeatureExtractor`` of a pretrained network.
    by : {"error", "predicted_class"}, default="error"
        Whether the samples of a class that the jury takes for others are one group, or one for
        each class that they are taken for.
    min_group_size : int, default=5
        Fewest training samples of a group; a class with fewer on a side stays whole.
    cross_fit : int, default=5
        Folds, stratified by class, by the values of the view's output: copies are in one fold,
        see :class:`ErrorGroups`.
    C : float, default=1e-3
        Inverse strength of the linear models' L2 regularisation, on standardised columns.
    n_jobs : int, default=None
        Views that are looked at at the same time, in threads; None is one.
    random_state : int, RandomState instance or None, default=None
        Seed of the folds and of views without a seed of their own.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    labels_ : ndarray of shape (n_samples,), int64
        Group of every training sample, 0 to n_groups-1: class by class, within a class first
        those that the jury takes for what they are.
    groups_ : ndarray of shape (n_groups,), int64
        The groups, 0 to n_groups-1.
    group_classes_ : ndarray of shape (n_groups,)
        Class label of every group.
    cluster_sizes_ : ndarray of shape (n_groups,), int64
        Training samples of every group.
    view_names_ : list of str
        Names of those that vote; the samples themselves are "clean".
    votes_ : ndarray of shape (n_views, n_samples, n_classes), float32
        Probability of every class by every view, out of fold, each class counting the same.
    view_scores_ : DataFrame
        For each view its balanced accuracy out of fold, its weight, how often it agrees with the
        jury, and the seconds that it took.
    score_ : ndarray of shape (n_samples, n_classes), float64
        What the jury says: the weighted mean of the votes.
    view_score_ : ndarray of shape (n_samples, n_classes), float64
        What the views say without the clean sample.
    effect_ : BalancingEffect or None
        What balancing the views' sides does to a linear head on the clean samples: ``level``
        ("none", "small" or "large") with its figures. None where nothing looks at the clean
        samples: a size without a test.
    evidence_ : Evidence
        Whether it is more than by chance, see :func:`evidence_of`: a test of what the views say
        together. Looked for when it is first asked for, in at most 2,500 samples that are kept
        until then, by 64 numbers each; of the clean samples, or of a table as it is.
    margin_ : ndarray of shape (n_samples,), float64
        Score of the own class minus the largest of the others; negative is the minority.
    judges_ : list
        The fitted models, for new samples.
    n_features_in_ : int
        Columns of X, where it is a table.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where they are str.

    See Also
    --------
    ErrorGroups : The same with one model of the sample itself.
    skspurious.mitigation.LastLayerRetrainer : What uses the groups best.
    skspurious.views : Views to choose from.

    Notes
    -----
    With the balanced accuracy a of a view and K classes its weight is
    ``((a - 1/K) / (1 - 1/K) / (1 - a)) ** 2``, and 0 within three standard errors of chance: a view
    of noise, or a constant one, has no say. The rule was chosen on three shortcuts planted in
    pictures, by their known minorities; the decisions in the documentation have the figures.

    A training sample that ``predict`` meets again with its class keeps its group: samples are
    known by their content, files by their bytes. Copies of a sample have the mean of their votes.
    Neither the order of the samples nor that of the views has an influence. A transformer that
    needs labels, such as ``SelectKBest``, is fitted anew without each fold, unless it sees to that
    itself as ``KeepWords``, ``TargetEncoder`` and ``TorchFeatureExtractor(cross_fit=5)`` do.

    A classifier's probabilities are divided by the shares of the classes that it was fitted on,
    unless it has ``class_weight="balanced"``. Classes of fewer samples than folds, which some of
    the models have not seen, do not count in balanced accuracies where two others do.

    Takes one pass over the samples for every view, and one more to know them again; for each view
    it fits six linear models or small ensembles of trees. Views of pictures without an `extractor`
    need no network. With ``views="auto"``, 10,000 pictures of 32 pixels take about 20 seconds on
    one core, and one view of 10,000 embeddings of 1,280 numbers less than two.

    References
    ----------
    .. [1] A. Puli, N. Joshi, Y. Wald, H. He, R. Ranganath. "Nuisances via Negativa: Adjusting for
       Spurious Correlations via Data Augmentation." 2022. arXiv:2210.01302. Views there are
       inputs of biased models; the jury is ours.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.group_inference import ViewJury
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 100)
    >>> sand = np.where(rng.random(200) < 0.9, y, 1 - y)       # goes with the class
    >>> X = np.stack([y + rng.normal(size=200), sand + 0.1 * rng.normal(size=200)], axis=1)
    >>> jury = ViewJury({"ground": [1]}, random_state=0).fit(X, y)
    >>> np.mean((jury.margin_ < 0) == (sand != y))
    np.float64(1.0)
    """

    _parameter_constraints: dict = {
        "views": [StrOptions({"auto"}), dict, list],
        "clean": [object],
        "extractor": [object],
        "by": [StrOptions({"error", "predicted_class"})],
        "min_group_size": [Interval(Integral, 1, None, closed="left")],
        "cross_fit": [Interval(Integral, 2, None, closed="left")],
        "C": [Interval(Real, 0, None, closed="neither")],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        views="auto",
        *,
        clean="auto",
        extractor=None,
        by="error",
        min_group_size=5,
        cross_fit=5,
        C=1e-3,
        n_jobs=None,
        random_state=None,
    ):
        self.views = views
        self.clean = clean
        self.extractor = extractor
        self.by = by
        self.min_group_size = min_group_size
        self.cross_fit = cross_fit
        self.C = C
        self.n_jobs = n_jobs
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y):
        """Let every view learn the class, and the jury decide on the training samples.

        Parameters
        ----------
        X : samples of any kind that the views take, or GroupedData
            Groups that ``X`` carries are ignored.
        y : array-like of shape (n_samples,)
            Class labels.

        Returns
        -------
        self : ViewJury

        Raises
        ------
        ValueError
            If there are no views, two have one name, columns that a view names are not in ``X``,
            or there is no standard set for ``X``.
        TypeError
            If a view is no transformer, no classifier and no columns.
        """
        X = self._check_samples(unpack_groups(X)[0], reset=True)
        y = column_or_1d(as_labels(y, "y"), warn=True)
        assert_all_finite(y, input_name="y")
        if len(y) != n_rows(X):
            raise ValueError(f"y has {len(y)} labels for {n_rows(X)} samples: give one for each.")
        check_classification_targets(y)
        self.classes_, code = np.unique(y, return_inverse=True)
        views = resolve_views(X, self.views, self.clean, self.extractor)
        n_classes = len(self.classes_)
        params = {"cross_fit": self.cross_fit, "C": self.C, "seed": draw_seed(self.random_state)}
        judges = [Judge(name, **params) for name in views]
        heard = Parallel(n_jobs=self.n_jobs, prefer="threads")(
            delayed(hear)(judge, view, X, y, code, n_classes)
            for judge, view in zip(judges, views.values(), strict=True)
        )
        key = sample_keys(X, code)
        self._known_key, at = np.unique(key, return_inverse=True)
        votes = np.stack([mean_of_copies(vote, at) for vote, _ in heard])
        self.judges_, self.view_names_ = judges, list(views)
        accuracy, self._weight = self._weigh(votes, code)
        self.votes_ = votes.astype(np.float32)
        score = jury_scores(votes, self._weight)
        self._known_score = score[np.unique(at, return_index=True)[1]]
        self._measure_effect(X, votes, code, params["seed"])
        self._learn_groups(score, code)
        agrees = [np.mean(taken_for(vote, code) == taken_for(score, code)) for vote in votes]
        self.view_scores_ = pd.DataFrame(
            {
                "balanced_accuracy": accuracy,
                "weight": self._weight,
                "agreement": agrees,
                "seconds": [seconds for _, seconds in heard],
            },
            index=pd.Index(self.view_names_, name="view"),
        )
        return self

    def _weigh(self, votes, code):
        """Balanced accuracies and weights of the views."""
        size = np.bincount(code)
        # A class of fewer samples than folds is unknown to models that leave one out.
        is_known = size >= self.cross_fit
        is_known |= np.count_nonzero(is_known) < 2
        rows = is_known[code]
        accuracy = balanced_hits(votes[:, rows], code[rows])
        is_clean = np.array([name == CLEAN for name in self.view_names_])
        weight = view_weights(
            accuracy, np.count_nonzero(is_known), clean=is_clean, n_samples=size[is_known]
        )
        return accuracy, weight

    def _measure_effect(self, X, votes, code, seed):
        """What the views say without the clean sample, and whether it is a shortcut."""
        is_view = np.array([name != CLEAN for name in self.view_names_])
        weight = np.where(is_view, self._weight, 0.0)
        self._view_weight = weight / max(weight.sum(), 1e-12)
        self.view_score_ = jury_scores(votes, self._view_weight)
        self.effect_ = None
        rows = [judge.pop_rows() for judge in self.judges_][-1]
        if not is_view.all() and rows is not None and len(self.classes_) > 1:
            self.effect_ = effect_of(rows, code, self.view_score_, seed=seed)
        Z = table_of_numbers(X) if is_view.all() or rows is None else rows
        self.keep_evidence(Z, code, Nuisance("jury", self.view_score_))

    def represent(self, X):
        """What the model of the clean samples looks at.

        Parameters
        ----------
        X : samples of the kind of ``fit``, or GroupedData

        Returns
        -------
        Z : ndarray of shape (n_samples, n_features_out)

        Raises
        ------
        ValueError
            If nothing looks at the clean samples: ``clean`` is None.
        """
        check_is_fitted(self)
        if self.view_names_[-1] != CLEAN:
            raise ValueError(
                "clean=None: nothing looks at the samples themselves. Give clean= a transformer, "
                "or the columns of the sample."
            )
        return self.judges_[-1].rows(self._check_samples(unpack_groups(X)[0]))

    def _learn_groups(self, score, code):
        """Sides, and groups of the training samples."""
        n_classes = len(self.classes_)
        self.score_, self.margin_ = score, margins_of(score, code)
        predicted = taken_for(score, code)
        part = parts_of_predictions(
            predicted, code, n_classes, by=self.by, min_group_size=self.min_group_size
        )
        size = np.zeros((n_classes, part.max() + 1), dtype=np.int64)
        np.add.at(size, (code, part[code, predicted]), 1)
        for k in range(n_classes):  # a class with too few on a side stays whole
            if size[k][size[k] > 0].min() < self.min_group_size:
                part[k] = 0
        self._part = part
        pairs = code * (part.max() + 1) + part[code, predicted]
        self._pairs, self.labels_ = np.unique(pairs, return_inverse=True)
        self.groups_ = np.arange(len(self._pairs))
        self.group_classes_ = self.classes_[self._pairs // (part.max() + 1)]
        self.cluster_sizes_ = np.bincount(self.labels_)

    def predict(self, X, y=None):
        """Group of new samples.

        Parameters
        ----------
        X : samples of the kind of ``fit``, or GroupedData
        y : array-like of shape (n_samples,), default=None
            Class labels: a side is one of a class. Without them a sample gets the first group of
            the class that the jury takes it for.

        Returns
        -------
        group : ndarray of shape (n_samples,), int64
            Values of ``groups_``. For the training samples and their labels, ``labels_``.

        Raises
        ------
        ValueError
            If `y` has a class that ``fit`` did not see, or another length than ``X``.
        """
        check_is_fitted(self)
        X = self._check_samples(unpack_groups(X)[0])
        code = encode_classes(y, self.classes_, n_rows(X))
        score = self._score(X, code)
        code = score.argmax(axis=1) if code is None else code
        predicted = taken_for(score, code)
        n_parts = self._part.max() + 1
        pair = code * n_parts + self._part[code, predicted]
        at = np.minimum(np.searchsorted(self._pairs, pair), len(self._pairs) - 1)
        # A side that its class did not have in training: the first group of the class.
        lost = self._pairs[at] != pair
        at[lost] = np.searchsorted(self._pairs, code[lost] * n_parts)
        return at

    def infer_groups(self, X, y):
        """Group of new samples of known classes; Pipelines, searches and scorers call this.

        Parameters
        ----------
        X : samples of the kind of ``fit``, or GroupedData
        y : array-like of shape (n_samples,)
            Class labels.

        Returns
        -------
        group : ndarray of shape (n_samples,), int64
            As :meth:`predict` gives them.
        """
        return self.predict(X, y)

    def decision_scores(self, X, y=None):
        """What the jury says of new samples: the weighted mean of the views' probabilities.

        Parameters
        ----------
        X : samples of the kind of ``fit``, or GroupedData
        y : array-like of shape (n_samples,), default=None
            Class labels, by which samples of training are known again and get the votes of models
            that have not seen them.

        Returns
        -------
        score : ndarray of shape (n_samples, n_classes), float64
        """
        check_is_fitted(self)
        X = self._check_samples(unpack_groups(X)[0])
        return self._score(X, encode_classes(y, self.classes_, n_rows(X)))

    def _score(self, X, code):
        shape = (n_rows(X), len(self.classes_))
        votes = np.stack(
            [
                judge.votes(X) if weight > 0 else np.zeros(shape)
                for judge, weight in zip(self.judges_, self._weight, strict=True)
            ]
        )
        score = jury_scores(votes, self._weight)
        if code is not None:  # samples of training have the votes of models that have not seen them
            key = sample_keys(X, code)
            at = np.minimum(np.searchsorted(self._known_key, key), len(self._known_key) - 1)
            is_known = self._known_key[at] == key
            score[is_known] = self._known_score[at[is_known]]
        return score

    def _check_samples(self, X, reset=False):
        """Tables as scikit-learn checks them; other kinds of samples as they are."""
        check_is_rows(X, "X")
        if isinstance(X, pd.DataFrame):  # columns may be of any type
            return validate_data(self, X, reset=reset, skip_check_array=True)
        if not is_table(X):
            return X
        return rows_of_fit(self, X) if reset else further_rows(self, X)

    def set_output(self, *, transform=None):
        """Does nothing: the samples stay as they are.

        Parameters
        ----------
        transform : str, default=None
            Container of tables.

        Returns
        -------
        self : object
        """
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = False
        return tags
