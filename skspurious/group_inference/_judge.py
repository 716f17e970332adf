"""A judge: what one view of a sample says of its class, by a model that has not seen it."""

import inspect
import time

import numpy as np
from scipy.special import softmax
from sklearn.base import TransformerMixin, clone, is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_selection import SelectorMixin
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.utils import check_array, get_tags

from skspurious.data import unpack_groups
from skspurious.data._grouped import take_rows
from skspurious.data._samples import n_rows
from skspurious.functional._cross_fit import cross_fit_folds, fit_balanced_logistic
from skspurious.group_inference._columns import TableColumns, column_positions
from skspurious.group_inference._keys import sample_keys
from skspurious.group_inference._samples import AS_ROWS, as_array, smallest_type
from skspurious.utils._random import seed_nested

_FEWEST = 1e-6  # probability that any class has at least


class Judge:
    """The votes of one view: probabilities of the classes, each class counting the same.

    Parameters
    ----------
    name : str
        Name of the view, for messages.
    cross_fit : int
        Folds, of the values of the view's output.
    C : float
        Inverse strength of the linear model's regularisation.
    seed : int
        Of the folds, and of what has no seed of its own.
    """

    def __init__(self, name, *, cross_fit, C, seed):
        self.name = name
        self.cross_fit = cross_fit
        self.C = C
        self.seed = seed

    def fit(self, view, X, y, code, n_classes):
        """Votes for the training samples, each by a model that was fitted without it.

        Parameters
        ----------
        view : transformer, classifier, or columns
            A transformer, whose output a linear model is fitted on; a Pipeline that ends in a
            classifier, or a classifier; or the names or positions of columns.
        X : samples of any kind, without groups
        y : ndarray of shape (n_samples,)
            Class labels, for transformers that want them.
        code : ndarray of shape (n_samples,)
            Class codes.
        n_classes : int

        Returns
        -------
        votes : ndarray of shape (n_samples, n_classes), float64
        """
        self.n_classes = n_classes
        transformer, classifier = _split(view, X, self.name)
        self.transformer_ = _seeded(transformer, self.seed)
        self.classifier = _seeded(classifier, self.seed)
        unfitted = clone(self.transformer_)
        Z = self._rows(_fit_transform(self.transformer_, X, y))
        votes = np.empty((len(code), n_classes))
        order, fold = cross_fit_folds(_values(Z), code, self.cross_fit, self.seed)
        for k in np.unique(fold):
            rows, held_out = order[fold != k], order[fold == k]
            part, new = take_rows(Z, rows), take_rows(Z, held_out)
            if _sees_labels(unfitted):  # it must not have seen those of the samples held out
                transformer = clone(unfitted)
                part = self._rows(_fit_transform(transformer, take_rows(X, rows), y[rows]))
                new = self._rows(transformer.transform(take_rows(X, held_out)))
            votes[held_out] = self._probability(self._fit(part, code[rows]), new)
        self.model_ = self._fit(take_rows(Z, order), code[order])
        self._seen = Z
        return votes

    def pop_rows(self):
        """What the model was fitted on, once, if it is a table of numbers; it is not kept."""
        rows, self._seen = self._seen, None
        return rows if self.classifier is None else None

    def rows(self, X):
        """What the model of new samples looks at."""
        return self._rows(self.transformer_.transform(X))

    def votes(self, X):
        """Votes for new samples, by a model of all training samples.

        Parameters
        ----------
        X : samples of the kind of ``fit``, without groups

        Returns
        -------
        votes : ndarray of shape (n_samples, n_classes), float64
        """
        return self._probability(self.model_, self.rows(X))

    def _rows(self, Z):
        """What the view gives, as its model takes it."""
        Z = as_array(unpack_groups(Z)[0])
        Z = Z.toarray() if hasattr(Z, "toarray") else Z
        if self.classifier is not None:
            return Z
        if len(getattr(Z, "shape", ())) != 2:
            what = f"samples of shape {Z.shape}" if hasattr(Z, "shape") else type(Z).__name__
            raise ValueError(
                f"the view {self.name!r} gives no table, but {what}. Let it end in what makes "
                "numbers of these, such as PatchFeatures() or a TorchFeatureExtractor, or in a "
                "classifier."
            )
        return smallest_type(check_array(Z, **AS_ROWS, input_name=f"view {self.name!r}"))

    def _fit(self, Z, code):
        """A model, with the shares of the classes that it has to be freed from."""
        if self.classifier is None:
            return fit_balanced_logistic(Z, code, self.n_classes, C=self.C)
        size = np.bincount(code, minlength=self.n_classes)
        if np.count_nonzero(size) == 1:
            return None, size
        is_balanced = getattr(self.classifier, "class_weight", None) == "balanced"
        return clone(self.classifier).fit(Z, code), (size > 0) if is_balanced else size

    def _probability(self, model, Z):
        if self.classifier is None:
            coef, intercept = model
            return softmax(Z @ coef + intercept, axis=1)
        fitted, size = model
        p = np.zeros((n_rows(Z), self.n_classes))
        if fitted is None:
            p[:, size > 0] = 1.0
            return p
        p[:, fitted.classes_] = fitted.predict_proba(Z)
        p = np.where(size > 0, np.maximum(p, _FEWEST) / np.maximum(size, 1), 0.0)
        return p / p.sum(axis=1, keepdims=True)


def _seeded(estimator, seed):
    return None if estimator is None else seed_nested(clone(estimator), seed)


def _fit_transform(transformer, X, y):
    """What the view makes of the training samples; out of fold where it sees to that itself."""
    if hasattr(transformer, "fit_transform"):
        return transformer.fit_transform(X, y)
    return transformer.fit(X, y).transform(X)


def _values(Z):
    """Numbers by which the rows are dealt out: equal for copies, whatever their order."""
    if isinstance(Z, np.ndarray) and Z.ndim == 2 and Z.dtype.kind in "buif":
        Z = Z if Z.dtype in (np.float32, np.float64) else Z.astype(np.float64)
        is_missing = np.isnan(Z)  # and not equal to itself
        return np.where(is_missing, np.finfo(Z.dtype).max, Z) if is_missing.any() else Z
    key = sample_keys(Z, np.zeros(n_rows(Z), dtype=np.int64))
    return key.view(np.uint32).reshape(len(key), 2).astype(np.float64)


def _sees_labels(transformer):
    """Whether a transformer fits to the labels of the same samples that it transforms."""
    if isinstance(transformer, Pipeline | FeatureUnion | ColumnTransformer):
        steps = transformer.get_params(deep=True).items()
        return any(_sees_labels(s) for k, s in steps if "__" not in k and hasattr(s, "fit"))
    if isinstance(transformer, SelectorMixin):
        return True
    # A fit_transform of its own is out of fold, as those of KeepWords and TargetEncoder are.
    if getattr(type(transformer), "fit_transform", None) is not TransformerMixin.fit_transform:
        return False
    parts = [transformer, *transformer.get_params(deep=True).values()]
    return any(get_tags(p).target_tags.required for p in parts if hasattr(p, "__sklearn_tags__"))


def _split(view, X, name):
    """The transformer of a view and its classifier, which is None for the linear model."""
    if inspect.isclass(view):
        raise TypeError(
            f"views has the class {view.__name__} for {name!r}: give an instance, "
            f"{view.__name__}()."
        )
    if isinstance(view, str) and view == "passthrough":
        return make_pipeline("passthrough"), None
    if not hasattr(view, "fit"):
        return _of_columns(view, X, name)
    steps = [step for _, step in view.steps] if isinstance(view, Pipeline) else [view]
    if not is_classifier(view):
        if not hasattr(steps[-1], "transform") and steps[-1] != "passthrough":
            raise TypeError(
                f"views has {name!r}: {view!r}, which has no transform and is no classifier: give "
                "a transformer, a classifier, or columns."
            )
        return view, None
    if not hasattr(steps[-1], "predict_proba"):
        raise TypeError(
            f"views has {name!r}, which ends in {steps[-1]!r}: it has no predict_proba. Take a "
            "LogisticRegression, or a CalibratedClassifierCV around it."
        )
    return make_pipeline(*(steps[:-1] or ["passthrough"])), steps[-1]


def _of_columns(columns, X, name):
    """Columns of a table: a linear model of numbers, boosted trees where there is anything else."""
    if columns is None or not isinstance(columns, str | int | slice | list | tuple | np.ndarray):
        raise TypeError(
            f"views has {name!r}: {columns!r}: give a transformer, a classifier, or columns."
        )
    transformer = TableColumns(column_positions(columns, X, name)).fit(X)
    if not transformer.columns:
        raise ValueError(f"views has {name!r}: {columns!r}, which are no columns: name some.")
    is_category = np.array([kind == "category" for kind in transformer.kinds_])
    if not is_category.any() and not np.isnan(transformer.transform(X)).any():
        return transformer, None
    return transformer, HistGradientBoostingClassifier(
        categorical_features=is_category, max_leaf_nodes=15, early_stopping=False
    )


def mean_of_copies(vote, at):
    """Votes of copies that were dealt out to several folds: their mean."""
    count = np.bincount(at)
    return np.stack([(np.bincount(at, column) / count)[at] for column in vote.T], axis=1)


def hear(judge, view, X, y, code, n_classes):
    """Votes of a judge, and the seconds that they took."""
    start = time.perf_counter()
    votes = judge.fit(view, X, y, code, n_classes)
    return votes, time.perf_counter() - start
