"""A judge: what one view of a sample says of its class, by a model that has not seen it."""

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.base import clone, is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder
from sklearn.utils import check_array

from skspurious.data import unpack_groups
from skspurious.functional._cross_fit import cross_fit_folds, fit_balanced_logistic
from skspurious.functional._rows import row_keys
from skspurious.group_inference._samples import as_array
from skspurious.utils._random import seed_nested

_FEWEST = 1e-6  # probability that any class has at least


class Judge:
    """The votes of one view: probabilities of the classes, each class counting the same.

    Parameters
    ----------
    view : transformer, classifier, or columns
        A transformer, whose output a linear model is fitted on; a Pipeline that ends in a
        classifier, or a classifier; or the names or numbers of columns.
    cross_fit : int
        Folds, of the values of the view's output.
    C : float
        Inverse strength of the linear model's regularisation.
    seed : int
        Of the folds, and of what has no seed of its own.
    """

    def __init__(self, view, *, cross_fit, C, seed):
        self.view = view
        self.cross_fit = cross_fit
        self.C = C
        self.seed = seed

    def fit(self, X, y, code, n_classes):
        """Votes for the training samples, each by a model that was fitted without it.

        Parameters
        ----------
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
        transformer, classifier = _split(self.view, X)
        self.transformer_ = _seeded(transformer, self.seed)
        self.classifier = _seeded(classifier, self.seed)
        Z = self._rows(_fit_transform(self.transformer_, X, y))
        votes = np.empty((len(Z), n_classes))
        order, fold = cross_fit_folds(Z, code, self.cross_fit, self.seed)
        for k in np.unique(fold):
            rows, held_out = order[fold != k], order[fold == k]
            votes[held_out] = self._probability(self._fit(Z[rows], code[rows]), Z[held_out])
        self.model_ = self._fit(Z, code)
        self.key_, at = np.unique(row_keys(Z, code), return_inverse=True)
        count = np.bincount(at)
        self.dtype_ = Z.dtype
        # Copies that were dealt out to several folds have the mean of their votes.
        self.known_ = np.stack([np.bincount(at, w) / count for w in votes.T], axis=1)
        return votes

    def votes(self, X, code=None):
        """Votes for new samples; those of training samples with their class as they were.

        Parameters
        ----------
        X : samples of the kind of ``fit``, without groups
        code : ndarray of shape (n_samples,), default=None
            Class codes, by which training samples are known again.

        Returns
        -------
        votes : ndarray of shape (n_samples, n_classes), float64
        """
        Z = self._rows(unpack_groups(self.transformer_.transform(X))[0]).astype(
            self.dtype_, copy=False
        )
        votes = self._probability(self.model_, Z)
        if code is not None:
            key = row_keys(Z, code)
            at = np.minimum(np.searchsorted(self.key_, key), len(self.key_) - 1)
            is_known = self.key_[at] == key
            votes[is_known] = self.known_[at[is_known]]
        return votes

    def _rows(self, Z):
        Z = Z.toarray() if hasattr(Z, "toarray") else Z
        finite = "allow-nan" if self.classifier is not None else True
        return check_array(as_array(Z), dtype=[np.float64, np.float32], ensure_all_finite=finite)

    def _fit(self, Z, code):
        """A model, with the logarithm of the class shares that it has to be freed from."""
        if self.classifier is None:
            return fit_balanced_logistic(Z, code, self.n_classes, C=self.C)
        share = np.bincount(code, minlength=self.n_classes) / len(code)
        return clone(self.classifier).fit(Z, code), share

    def _probability(self, model, Z):
        if self.classifier is None:
            coef, intercept = model
            return softmax(Z @ coef + intercept, axis=1)
        fitted, share = model
        p = np.zeros((len(Z), self.n_classes))
        p[:, fitted.classes_] = fitted.predict_proba(Z)
        p = np.where(share > 0, np.maximum(p, _FEWEST) / np.where(share > 0, share, 1.0), 0.0)
        return p / p.sum(axis=1, keepdims=True)


def _seeded(estimator, seed):
    return None if estimator is None else seed_nested(clone(estimator), seed)


def _fit_transform(transformer, X, y):
    """What the view makes of the training samples; out of fold where it fits to their labels."""
    if hasattr(transformer, "fit_transform"):
        return unpack_groups(transformer.fit_transform(X, y))[0]
    return unpack_groups(transformer.fit(X, y).transform(X))[0]


def _split(view, X):
    """The transformer of a view and its classifier, which is None for the linear model."""
    if not hasattr(view, "fit"):
        return _columns(view, X)
    if isinstance(view, Pipeline) and is_classifier(view):
        *before, last = [step for _, step in view.steps]
        return (make_pipeline(*before) if before else _everything(), last)
    if is_classifier(view):
        return _everything(), view
    return view, None


def _everything():
    return make_pipeline("passthrough")


def _columns(columns, X):
    """Columns of a table: a linear model of numbers, boosted trees where there are categories."""
    columns = [columns] if isinstance(columns, str | int) else columns
    if not hasattr(X, "dtypes"):
        return ColumnTransformer([("columns", "passthrough", columns)]), None
    chosen = X[list(columns)] if not isinstance(columns, slice) else X.iloc[:, columns]
    is_number = [pd.api.types.is_numeric_dtype(t) for t in chosen.dtypes]
    if all(is_number) and not chosen.isna().to_numpy().any():
        return ColumnTransformer([("columns", "passthrough", list(chosen.columns))]), None
    numbers = [c for c, n in zip(chosen.columns, is_number, strict=True) if n]
    others = [c for c, n in zip(chosen.columns, is_number, strict=True) if not n]
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=250
    )
    transformer = ColumnTransformer(
        [("categories", encoder, others), ("numbers", "passthrough", numbers)]
    )
    trees = HistGradientBoostingClassifier(
        categorical_features=np.arange(len(others)), max_leaf_nodes=15, early_stopping=False
    )
    return transformer, trees
