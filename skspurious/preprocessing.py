"""GroupedTransformer: any scikit-learn transformer on samples that carry their groups."""

from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skspurious.data import GroupedData, unpack_groups

__all__ = ["GroupedTransformer"]


def _transformer_has(name):
    def check(self):
        getattr(getattr(self, "transformer_", self.transformer), name)
        return True

    return check


class GroupedTransformer(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):
    """Transform the samples of a GroupedData and keep their groups.

    A transformer of scikit-learn makes an array of whatever it gets, and so drops the groups of
    a :class:`~skspurious.GroupedData`. Inside this one it gets the samples alone, and what it
    returns carries the groups again. Then a scaler or a ``ColumnTransformer`` can come before a
    classifier that needs groups, in a Pipeline and in a search over it.

    .. versionadded:: 0.1

    Parameters
    ----------
    transformer : transformer
        Cloned and fitted on the samples.

    Attributes
    ----------
    transformer_ : transformer
        The fitted transformer.
    n_features_in_ : int
        Number of features, where the transformer knows it.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where the transformer knows them.

    See Also
    --------
    skspurious.GroupedData : Samples that carry their groups.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skspurious import GroupDROClassifier, GroupedData
    >>> from skspurious.datasets import make_spurious_classification
    >>> from skspurious.preprocessing import GroupedTransformer
    >>> train = make_spurious_classification(300, random_state=0)
    >>> model = make_pipeline(GroupedTransformer(StandardScaler()), GroupDROClassifier())
    >>> model = model.fit(GroupedData(train.data, train.sample_group), train.target)
    >>> model.predict(train.data[:5]).shape
    (5,)
    """

    def __init__(self, transformer):
        self.transformer = transformer

    def fit(self, X, y=None):
        """Fit the transformer.

        Parameters
        ----------
        X : GroupedData, or whatever the transformer takes
        y : array-like of shape (n_samples,), default=None
            Class labels, handed on to the transformer.

        Returns
        -------
        self : GroupedTransformer
        """
        samples, _, _ = unpack_groups(X)
        self.transformer_ = clone(self.transformer).fit(samples, y)
        return self

    def transform(self, X):
        """Transform the samples.

        Parameters
        ----------
        X : GroupedData, or whatever the transformer takes

        Returns
        -------
        X : GroupedData where `X` is one, else what the transformer returns
        """
        check_is_fitted(self)
        return self._carry(X, self.transformer_.transform)

    def fit_transform(self, X, y=None):
        """Fit the transformer and transform the same samples.

        Parameters
        ----------
        X : GroupedData, or whatever the transformer takes
        y : array-like of shape (n_samples,), default=None
            Class labels, handed on to the transformer.

        Returns
        -------
        X : GroupedData where `X` is one, else what the transformer returns
        """
        self.transformer_ = clone(self.transformer)
        return self._carry(X, lambda samples: self.transformer_.fit_transform(samples, y))

    def _carry(self, X, transform):
        samples, group, inferrer = unpack_groups(X)
        samples = transform(samples)
        if not isinstance(X, GroupedData):
            return samples
        return GroupedData(samples, group, group_inferrer=inferrer)

    @available_if(_transformer_has("get_feature_names_out"))
    def get_feature_names_out(self, input_features=None):
        """Names of the features that come out.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the features that go in.

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self)
        return self.transformer_.get_feature_names_out(input_features)

    @available_if(_transformer_has("set_output"))
    def set_output(self, *, transform=None):
        """Container of the samples that come out, as scikit-learn's ``set_output``.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"} or None, default=None

        Returns
        -------
        self : GroupedTransformer
        """
        self.transformer.set_output(transform=transform)
        if hasattr(self, "transformer_"):
            self.transformer_.set_output(transform=transform)
        return self

    @property
    def n_features_in_(self):
        """Number of features of the fitted transformer."""
        return self.transformer_.n_features_in_

    @property
    def feature_names_in_(self):
        """Names of the features of the fitted transformer."""
        return self.transformer_.feature_names_in_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = self.transformer.__sklearn_tags__()
        tags.input_tags, tags.target_tags = inner.input_tags, inner.target_tags
        tags.transformer_tags = inner.transformer_tags
        return tags
