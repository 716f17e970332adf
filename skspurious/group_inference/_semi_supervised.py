"""SemiSupervisedGroupInferrer: groups from a spurious attribute that is known of a few samples."""

from numbers import Integral, Real

import numpy as np
from scipy.linalg import block_diag
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from skspurious.data._grouped import carried_attribute
from skspurious.data._groups import encode_attribute
from skspurious.data._sources import pipeline_drops_groups
from skspurious.functional._calibration import fit_temperature
from skspurious.functional._cross_fit import cross_fit_folds, fit_balanced_logistic
from skspurious.functional._rows import row_chunks, row_keys
from skspurious.group_inference._evidence import Nuisance
from skspurious.group_inference._found_evidence import CarriesEvidence
from skspurious.group_inference._label_report import report_labels
from skspurious.group_inference._samples import (
    GroupCarrier,
    PassThrough,
    encode_classes,
    rows_of_fit,
)
from skspurious.utils._fitting import _fit_context
from skspurious.utils._random import draw_seed
from skspurious.utils._sklearn_compat import Interval, StrOptions
from skspurious.utils._warnings import warn

# Features from which on components are found by a randomised method.
_MANY_FEATURES = 2000


class SemiSupervisedGroupInferrer(CarriesEvidence, GroupCarrier, PassThrough):
    """Find the groups of all samples from a spurious attribute that is known of a few.

    A logistic regression on the embedding learns the attribute from the labelled rows, and says
    which value the other rows have. A group is a class and a value, and rows that are labelled
    keep their label. Several dozen labels can do, if they are those that
    :func:`suggest_annotations` asks for. As in Spread Spurious Attribute [1]_ and BARACK [2]_.

    Read more in the :doc:`quick start </quickstart>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    C : float, default=3e-3
        Inverse strength of the model's L2 regularisation, as in scikit-learn.
    n_components : "auto", int or None, default="auto"
        The model sees this many principal components of the standardised features of all rows,
        labelled or not. "auto" is the number of labelled rows; None leaves the features as they
        are.
    n_view_columns : int, default=0
        How many of the last columns of ``X`` say what a view takes the sample for, such as its
        logits out of fold. They are no part of the components, and have together the variance
        of all of these, so that the penalty does not keep them small: labels correct the view.
    cross_fit : int, default=5
        Number of folds in which the labelled rows are judged by models that have not seen them.
    missing_values : "auto", None, or a value, default="auto"
        A further mark of what is not known, besides None and NaN. "auto" has none, but refuses -1,
        which means "not known" to some and is a value to others: say ``missing_values=-1`` or
        ``missing_values=None``.
    if_unknown : {"raise", "class"}, default="raise"
        What to do where no attribute or only one value of it is known: raise an error, or make
        every class one group, with a warning.
    random_state : int, RandomState instance or None, default=None
        Seed of the folds. The groups do not depend on it.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    attribute_values_ : ndarray of shape (n_values,)
        Values of the attribute; None alone where none is known.
    labels_ : ndarray of shape (n_samples,), int64
        Group of every training sample.
    groups_ : ndarray of shape (n_groups,), int64
        The groups, 0 to n_groups-1: ``class * n_values + value``, as
        :func:`~skspurious.make_sample_group` numbers them. Some may have no samples.
    group_classes_ : ndarray of shape (n_groups,)
        Class label of every group.
    group_attributes_ : ndarray of shape (n_groups,)
        Value of the attribute of every group.
    group_sizes_ : ndarray of shape (n_groups,), int64
        Training samples of every group.
    is_labelled_ : ndarray of shape (n_samples,), bool
        Whether the attribute of a training sample was given.
    coef_ : ndarray of shape (n_features, n_values), float64
        Coefficients of the model: its logits are ``X @ coef_ + intercept_``.
    intercept_ : ndarray of shape (n_values,), float64
        Intercepts of the model.
    temperature_ : float
        What the logits are divided by before they become probabilities; NaN without a model.
    expected_accuracy_ : ndarray of shape (n_classes,), float64
        Expected share of samples of a class whose value is right: 1 for a labelled one, otherwise
        the probability of the value that it got. NaN where there are too few labels to tell.
    label_report_ : DataFrame
        Of every class, by its labels: `class`, `n_samples`, `n_labelled`, `n_correct` (labelled
        rows that a model got right that had not seen them), `accuracy`, `low` and `high` (its
        Wilson interval of 95 %), `expected_accuracy`, and `is_enough`. The last is False where a
        group that the class has been given has fewer than 5 labelled rows.
    evidence_ : Evidence
        Whether the attribute misleads a linear head, see :func:`evidence_of`; looked for when it
        is first asked for, in at most 2,500 rows.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where the input has them.

    See Also
    --------
    suggest_annotations : Says which samples to label.
    SpuriousGroupInferrer : Needs no label of an attribute.

    Notes
    -----
    Needs the attribute of some training samples, and no group label anywhere else. One model
    serves all classes, and every (class, value) with a label counts the same in it: a value that
    was not seen in a class is known from the others. A row that ``predict`` meets again keeps its
    label, unless equal rows of a class were given different ones.

    Probabilities are calibrated by a temperature [3]_ out of fold on the labelled rows. Where hard
    samples were labelled on purpose, accuracy on them is lower than on all.

    Differences from [1]_: a linear model of an embedding takes the place of a network that is
    trained on labelled and unlabelled samples, which here give the components; and there is no
    threshold, values that are unsure are used like the others. The rule of ``n_components`` comes
    from true attributes of Waterbirds' training rows, after a test figure there had been seen.

    References
    ----------
    .. [1] J. Nam, J. Kim, J. Lee, J. Shin. "Spread Spurious Attribute: Improving Worst-Group
       Accuracy with Spurious Attribute Estimation." ICLR 2022. arXiv:2204.02070.
    .. [2] N. Sohoni et al. "BARACK: Partially Supervised Group Robustness with Guarantees."
       2021. arXiv:2201.00072.
    .. [3] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger. "On Calibration of Modern Neural Networks."
       ICML 2017. arXiv:1706.04599.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious import GroupDROClassifier, GroupedData
    >>> from skspurious.group_inference import SemiSupervisedGroupInferrer
    >>> rng = np.random.default_rng(0)
    >>> y, ground = np.arange(300) % 2, rng.choice(["grass", "sand"], 300)
    >>> Z = np.where((ground == "sand")[:, None], [0.0, 5.0], [5.0, 0.0])
    >>> Z = Z + rng.normal(size=(300, 2))
    >>> known = np.where(np.arange(300) < 40, ground, None)  # of 40 the ground is known
    >>> inferrer = SemiSupervisedGroupInferrer().fit(Z, y, sample_attribute=known)
    >>> bool((inferrer.group_attributes_[inferrer.labels_] == ground).all())
    True
    >>> inferrer.expected_accuracy_ > 0.95
    array([ True,  True])
    >>> dro = GroupDROClassifier(group_inferrer=SemiSupervisedGroupInferrer(), max_epochs=1)
    >>> dro.fit(GroupedData(Z, sample_attribute=known), y).groups_
    array([0, 1, 2, 3])
    """

    # Routing works without set_fit_request.
    __metadata_request__fit = {"sample_attribute": True}

    _parameter_constraints: dict = {
        "C": [Interval(Real, 0, None, closed="neither")],
        "n_components": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left"), None],
        "n_view_columns": [Interval(Integral, 0, None, closed="left")],
        "cross_fit": [Interval(Integral, 2, None, closed="left")],
        "missing_values": [str, Real, None],
        "if_unknown": [StrOptions({"raise", "class"})],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        C=3e-3,
        n_components="auto",
        n_view_columns=0,
        cross_fit=5,
        missing_values="auto",
        if_unknown="raise",
        random_state=None,
    ):
        self.C = C
        self.n_components = n_components
        self.n_view_columns = n_view_columns
        self.cross_fit = cross_fit
        self.missing_values = missing_values
        self.if_unknown = if_unknown
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, *, sample_attribute=None):
        """Learn the attribute from the labelled samples, and find the groups of all.

        Parameters
        ----------
        X : array-like, tensor or GroupedData of shape (n_samples, n_features)
            Embedding. Groups that ``X`` carries are ignored.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_attribute : array-like of shape (n_samples,), default=None
            Value of the attribute, any hashable; None or NaN where it is not known. None in
            place of the array takes the ``sample_attribute`` that ``X`` carries.

        Returns
        -------
        self : SemiSupervisedGroupInferrer

        Raises
        ------
        ValueError
            If no attribute or one value alone is known (see `if_unknown`), lengths differ, or -1
            may mean "not known".
        """
        given = carried_attribute(X) if sample_attribute is None else sample_attribute
        X, y = rows_of_fit(self, X, y)
        check_classification_targets(y)
        self.classes_, code = np.unique(y, return_inverse=True)
        value, values = self._encode(given, len(y))
        if len(values) < 2:
            self._settle_for_classes(given, values)
            values = values if len(values) else np.array([None], dtype=object)
        self.attribute_values_, self.is_labelled_ = values, value >= 0
        self._name_groups()
        self._remember(X, code, value)
        self._learn(X, code, value)
        self.labels_ = self._groups_of(X, code, value)
        self.group_sizes_ = np.bincount(self.labels_, minlength=len(self.groups_))
        self._report(X, code, value)
        says = np.eye(len(values))[self.labels_ % len(values)]
        own = X[:, : X.shape[1] - self.n_view_columns]
        self.keep_evidence(own, code, Nuisance("attribute", says))
        return self

    def predict(self, X, y=None):
        """Group of new rows.

        Parameters
        ----------
        X : array-like, tensor or GroupedData of shape (n_samples, n_features)
            Values of the ``sample_attribute`` that it carries are kept.
        y : array-like of shape (n_samples,), default=None
            Class labels. Without them, the class is predicted by a logistic regression of its own.

        Returns
        -------
        group : ndarray of shape (n_samples,), int64
            Values of ``groups_``. For the training samples and their labels, ``labels_``.

        Raises
        ------
        ValueError
            If `y` has a class, or the carried attribute a value, that `fit` did not see.
        """
        check_is_fitted(self)
        return self._groups_of(*self._prepare(X, y))

    def infer_groups(self, X, y):
        """Group of new rows of known classes; Pipelines, searches and scorers call this.

        Parameters
        ----------
        X : array-like, tensor or GroupedData of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Class labels.

        Returns
        -------
        group : ndarray of shape (n_samples,), int64
            As :meth:`predict` gives them.
        """
        return self.predict(X, y=y)

    def predict_proba(self, X, y=None):
        """Probability of every group for new rows.

        Parameters
        ----------
        X : array-like, tensor or GroupedData of shape (n_samples, n_features)
            Of a row whose attribute it carries, the probability is 1.
        y : array-like of shape (n_samples,), default=None
            Class labels. Given, groups of other classes have probability 0; otherwise it is that
            of the class times that of the value.

        Returns
        -------
        probability : ndarray of shape (n_samples, n_groups), float64
            Rows sum to 1.
        """
        check_is_fitted(self)
        X, code, value = self._prepare(X, y)
        of_value = self._value_probability(X, code, value)
        if code is None:
            of_class = softmax(_logits(X, *self._class_model), axis=1)
        else:
            of_class = np.eye(len(self.classes_))[code]
        return (of_class[:, :, None] * of_value[:, None, :]).reshape(len(X), -1)

    # ------------------------------------------------------------------- steps of fit

    def _encode(self, attribute, n_samples, values=None):
        """Codes of the attribute, -1 where it is not known, and its values."""
        return encode_attribute(
            attribute, n_samples=n_samples, values=values, missing_values=self.missing_values
        )

    def _settle_for_classes(self, given, values):
        """Raise, or warn that classes are the groups."""
        if given is None:
            problem = "has no sample_attribute"
            if pipeline_drops_groups("sample_attribute"):
                problem += (
                    ", for a step before has dropped the one that X carried into the Pipeline "
                    "(skspurious.pipeline.make_pipeline carries it through every step)"
                )
        elif len(values) == 0:
            problem = "has a sample_attribute in which no value is known"
        else:
            problem = f"has a sample_attribute with one known value, {values.tolist()[0]!r}"
        if self.if_unknown == "raise":
            raise ValueError(
                f"{type(self).__name__} {problem}. Give fit(X, y, sample_attribute=a), or X as "
                "GroupedData(X, sample_attribute=a), with some samples of every value that is to "
                "be told from the others, and None elsewhere; suggest_annotations says which ones "
                "to label. With if_unknown='class' every class is then one group."
            )
        warn(f"{type(self).__name__} {problem}: every class is one group.")

    def _name_groups(self):
        n_classes, n_values = len(self.classes_), len(self.attribute_values_)
        self.groups_ = np.arange(n_classes * n_values)
        self.group_classes_ = np.repeat(self.classes_, n_values)
        self.group_attributes_ = np.tile(self.attribute_values_, n_classes)

    def _remember(self, X, code, value):
        """Keys of the labelled rows, by which they keep their labels."""
        rows = np.flatnonzero(value >= 0)
        key, first, at = np.unique(
            row_keys(X[rows], code[rows]), return_index=True, return_inverse=True
        )
        known = value[rows][first]
        known[at[value[rows] != known[at]]] = -1  # equal rows with different labels
        self._known_key, self._known_value = key, known

    def _learn(self, X, code, value):
        """Model of the attribute and, out of fold, its temperature; and that of the class."""
        n_values = len(self.attribute_values_)
        self._class_model = fit_balanced_logistic(X, code, len(self.classes_))
        rows = np.flatnonzero(value >= 0)
        self._seen = np.full(len(X), -1)  # value that a model predicts which has not seen the row
        self.temperature_ = np.nan
        if n_values < 2:
            self.coef_, self.intercept_ = np.zeros((X.shape[1], n_values)), np.zeros(n_values)
            return
        if self.n_view_columns >= X.shape[1]:
            raise ValueError(
                f"n_view_columns={self.n_view_columns}, but X has {X.shape[1]} columns: the "
                "embedding needs some of them."
            )
        cell = code * n_values + value
        seed = draw_seed(self.random_state)
        order, fold = cross_fit_folds(X[rows], cell[rows], self.cross_fit, seed)
        rows = rows[order]  # their order is that of their values: the model does not depend on it
        mean, space, scale = self._find_space(X, len(rows))
        Z, value, cell = (X[rows] - mean) @ space, value[rows], cell[rows]
        coef, intercept = self._fit_model(Z, value, cell, scale)
        self.coef_ = space @ coef
        self.intercept_ = intercept - mean @ self.coef_
        logits = np.empty((len(rows), n_values))
        for k in np.unique(fold):
            out, rest = fold == k, fold != k
            logits[out] = _logits(Z[out], *self._fit_model(Z[rest], value[rest], cell[rest], scale))
        self.temperature_ = fit_temperature(logits, value)
        self._seen[rows] = logits.argmax(axis=1)

    def _find_space(self, X, n_labelled):
        """What the model sees is ``(X - mean) @ space``; and the scale of each of its columns."""
        scaler = StandardScaler().fit(X)
        n_view = self.n_view_columns
        n_own = X.shape[1] - n_view
        wanted = n_labelled if self.n_components == "auto" else self.n_components or n_own
        space, scale = np.eye(n_own), np.ones(n_own)
        if wanted < min(n_own, len(X)):
            solver = "covariance_eigh" if n_own <= _MANY_FEATURES else "randomized"
            pca = PCA(wanted, svd_solver=solver, random_state=0)
            pca.fit(scaler.transform(X)[:, :n_own])
            space, scale = pca.components_.T, np.sqrt(pca.explained_variance_)
        if n_view:
            space = block_diag(space, np.eye(n_view))
            view_scale = np.sqrt((scale**2).sum() / n_view)
            scale = np.append(scale, np.full(n_view, view_scale))
        return scaler.mean_, space / scaler.scale_[:, None], scale

    def _fit_model(self, Z, value, cell, scale):
        """Logistic regression of the value in which every class and value counts the same."""
        n_values = len(self.attribute_values_)
        return fit_balanced_logistic(Z, value, n_values, C=self.C, strata=cell, scale=scale)

    def _report(self, X, code, value):
        """How far the groups can be trusted, by class."""
        seen, labelled = vars(self).pop("_seen"), value >= 0
        sure = np.where(labelled, 1.0, self._value_probability(X, code, value).max(axis=1))
        is_right = labelled & (seen == value)
        self.label_report_ = report_labels(self, code, value, labelled, is_right, sure)
        self.expected_accuracy_ = self.label_report_["expected_accuracy"].to_numpy()

    # ------------------------------------------------------------------- rows and values

    def _prepare(self, X, y):
        """Rows, their class codes (or None), and the codes of the attribute that they carry."""
        attribute, X = carried_attribute(X), self._check_samples(X)
        code = encode_classes(y, self.classes_, len(X))
        return X, code, self._encode(attribute, len(X), self.attribute_values_)[0]

    def _groups_of(self, X, code, value):
        if code is None:
            code = _logits(X, *self._class_model).argmax(axis=1)
            known = value
        else:
            known = self._recall(X, code, value)
        predicted = _logits(X, self.coef_, self.intercept_).argmax(axis=1)
        return code * len(self.attribute_values_) + np.where(known >= 0, known, predicted)

    def _value_probability(self, X, code, value):
        """Probability of every value: 1 for a known one."""
        known = value if code is None else self._recall(X, code, value)
        temperature = 1.0 if np.isnan(self.temperature_) else self.temperature_
        probability = softmax(_logits(X, self.coef_, self.intercept_) / temperature, axis=1)
        rows = np.flatnonzero(known >= 0)
        probability[rows] = np.eye(probability.shape[1])[known[rows]]
        return probability

    def _recall(self, X, code, value):
        """The values that are given, or were for the same rows in training; -1 for others."""
        if not len(self._known_key):
            return value
        key = row_keys(X, code)
        at = np.minimum(np.searchsorted(self._known_key, key), len(self._known_key) - 1)
        known = np.where(self._known_key[at] == key, self._known_value[at], -1)
        return np.where(value >= 0, value, known)


def _logits(X, coef, intercept):
    """Logits of all rows, a part of them at a time."""
    return np.concatenate([X[part] @ coef + intercept for part in row_chunks(*X.shape)])
