"""Views of texts: words in disorder, a few words only, one of several fields."""

import re
from collections.abc import Mapping
from numbers import Integral

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted, column_or_1d

from skspurious.data import unpack_groups
from skspurious.utils._fitting import _fit_context
from skspurious.utils._rows import as_labels, check_is_rows
from skspurious.utils._sklearn_compat import Interval
from skspurious.views._base import View, carry_groups, rng_of

_WORD = r"(?u)\b\w+\b"


class TextView(View):
    """Base of the views of texts; a subclass writes ``_change(text)``."""

    def _view(self, X):
        return map_texts(X, self._change, type(self).__name__)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        return tags


def map_texts(X, change, name):
    """The changed texts in a container of the same kind: list, array or Series."""
    check_is_rows(X, "X")
    is_list = isinstance(X, list | tuple)
    has_fields = is_list and len(X) > 0 and isinstance(X[0], list | tuple | Mapping)
    is_column = isinstance(X, pd.Series | np.ndarray) and X.ndim == 1
    if has_fields or not (is_list or is_column):
        raise ValueError(
            f"X is a {type(X).__name__}; {name} takes texts: a list, an array or a Series of str. "
            "Of tuples, dicts or a DataFrame, SelectFields takes the texts of a field."
        )
    for i, text in enumerate(X):
        if not isinstance(text, str):
            raise ValueError(f"X[{i}] is {text!r}; {name} takes texts, each of them a str.")
    texts = [change(str(text)) for text in X]
    if isinstance(X, pd.Series):
        return pd.Series(texts, index=X.index, name=X.name, dtype=X.dtype)
    return np.array(texts, dtype=object) if isinstance(X, np.ndarray) else texts


class ShuffleWords(TextView):
    """Puts the words of every text in another order.

    What is left is which words there are; what they say together is gone [1]_.

    .. versionadded:: 0.1

    Parameters
    ----------
    n_together : int, default=1
        Neighbouring words that stay together: 1 shuffles words, 2 pairs of them.
    random_state : int, default=0
        Seed of the orders.

    See Also
    --------
    KeepWords : Leaves out most of the words.
    SelectFields : Leaves out whole fields.

    Notes
    -----
    Words are what white space divides. Each text has an order of its own, that the seed and the
    text decide, so it is the same in ``fit_transform`` and later, and in a part of the rows.

    References
    ----------
    .. [1] A. Puli, N. Joshi, Y. Wald, H. He, R. Ranganath, "Nuisances via Negativa: Adjusting for
       Spurious Correlations via Data Augmentation", 2022. arXiv:2210.01302.

    Examples
    --------
    >>> from skspurious.views import ShuffleWords
    >>> ShuffleWords().transform(["the dog bites the man"])
    ['the the dog bites man']
    """

    _parameter_constraints: dict = {
        "n_together": [Interval(Integral, 1, None, closed="left")],
        "random_state": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(self, n_together=1, *, random_state=0):
        self.n_together = n_together
        self.random_state = random_state

    def _change(self, text):
        words, n = text.split(), self.n_together
        pieces = [words[i : i + n] for i in range(0, len(words), n)]
        rng = _rng(text, self.random_state)
        return " ".join(word for k in rng.permutation(len(pieces)) for word in pieces[k])


class KeepWords(TextView):
    """Keeps a few words of every text: those of a list, or those that go with the label.

    .. versionadded:: 0.1

    Parameters
    ----------
    words : list of str or int, default=20
        The words that are kept; a number is that of the words most tied to the label, which
        ``fit`` finds.
    random_state : int, default=0
        Seed of the halves in ``fit_transform``.

    Attributes
    ----------
    words_ : list of str
        The words that ``transform`` keeps, most tied to the label first.

    See Also
    --------
    ShuffleWords : Keeps all words, in another order.

    Notes
    -----
    A word is a run of letters, digits and underscores, in lower case; the words that are kept
    stay in their order, divided by a space. Of a text without any of them nothing is left: "".

    Tied to the label is what has the largest chi-squared statistic between its presence and the
    class. With a number of words ``fit_transform`` is not ``fit`` and then ``transform``, as with
    scikit-learn's ``TargetEncoder``: words that were chosen by a text's own label would say
    something of it, however random the labels are. So the texts are divided in two halves, each
    with a share of every class, and what is kept of a text is chosen on the other half. With
    random labels a classifier of the words is then right about as many as by chance; with five
    folds it was not, for a word that the label of a text brings in stands in the other folds.

    Examples
    --------
    >>> from skspurious.views import KeepWords
    >>> texts = ["Nobody sleeps.", "A man sleeps.", "Nobody is here", "A man is here."]
    >>> KeepWords(["nobody", "man"]).transform(texts)
    ['nobody', 'man', 'nobody', 'man']
    >>> KeepWords(3).fit(texts, [0, 1, 0, 1]).transform(["Is nobody here?", "Yes."])
    ['nobody', '']
    """

    _parameter_constraints: dict = {
        "words": [list, tuple, Interval(Integral, 1, None, closed="left")],
        "random_state": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(self, words=20, *, random_state=0):
        self.words = words
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Find the words, where they are not given.

        Parameters
        ----------
        X : list, array or Series of str, or GroupedData of them
        y : array-like of shape (n_samples,), default=None
            Class labels; to find words they are needed.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If words are to be found, and there is no `y`.
        """
        if not self._learns:
            self.words_ = [word.lower() for word in self.words]
            return self
        if y is None:
            raise ValueError(
                f"words={self.words} is the number of words that go with the label: fit needs y. "
                "Or give a list of words."
            )
        texts = list_of(unpack_groups(X)[0], type(self).__name__)
        self.words_ = _tied_words(texts, column_or_1d(as_labels(y, "y")), self.words)
        return self

    def fit_transform(self, X, y=None):
        """Find the words, and keep those of every text that are chosen on the other half.

        Parameters
        ----------
        X : list, array or Series of str, or GroupedData of them
        y : array-like of shape (n_samples,), default=None
            Class labels; to find words they are needed.

        Returns
        -------
        Z : texts in the container of ``X``
        """
        self.fit(X, y)
        if not self._learns:
            return self.transform(X)
        y = column_or_1d(as_labels(y, "y"))
        return carry_groups(X, lambda texts: self._by_halves(texts, y))

    def _by_halves(self, X, y):
        texts = list_of(X, type(self).__name__)
        drawn = [_rng(text, self.random_state).random() for text in texts]  # whatever its row is
        half = np.empty(len(texts), dtype=np.int64)
        half[np.lexsort((drawn, np.unique(y, return_inverse=True)[1]))] = np.arange(len(texts)) % 2
        kept = []
        for k in (0, 1):
            rows = np.flatnonzero(half != k)
            kept.append(set(_tied_words([texts[i] for i in rows], y[rows], self.words)))
        own = iter(half)
        return map_texts(X, lambda text: _keep(text, kept[next(own)]), type(self).__name__)

    @property
    def _learns(self):
        return isinstance(self.words, Integral)

    def _view(self, X):
        if self._learns:
            check_is_fitted(self)
        kept = {word.lower() for word in (self.words_ if self._learns else self.words)}
        return map_texts(X, lambda text: _keep(text, kept), type(self).__name__)

    def __sklearn_is_fitted__(self):
        return not self._learns or hasattr(self, "words_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = tags.target_tags.required = self._learns
        return tags


def _rng(text, seed):
    return rng_of(text.encode("utf-8", "surrogatepass"), seed)


def list_of(X, name):
    return list(map_texts(X, str, name))


def _words(text):
    return re.findall(_WORD, text.lower())


def _keep(text, words):
    return " ".join(word for word in _words(text) if word in words)


def _tied_words(texts, y, n_words):
    """The words whose presence has the largest chi-squared statistic; of equal ones by name."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.feature_selection import chi2

    if not any(map(_words, texts)):
        return []
    vectorizer = CountVectorizer(binary=True, analyzer=_words)
    statistic = np.nan_to_num(chi2(vectorizer.fit_transform(texts), y)[0])
    order = np.argsort(-statistic, kind="stable")[:n_words]
    return vectorizer.get_feature_names_out()[order].tolist()


class SelectFields(View):
    """Takes some fields of texts that have several: the hypothesis without the premise.

    .. versionadded:: 0.1

    Parameters
    ----------
    fields : str, int, or list of them
        Name of the fields, of dicts and DataFrames; position of the fields, of tuples. Those of a
        list are joined in its order.
    separator : str, default=" "
        What is put between fields that are joined.

    See Also
    --------
    ShuffleWords : A view of whole texts.
    sklearn.compose.ColumnTransformer : Does as much for tables of numbers.

    Notes
    -----
    A list of tuples or dicts, and a Hugging Face dataset, become a list of texts, and a
    DataFrame a Series.

    Examples
    --------
    >>> from skspurious.views import SelectFields
    >>> pairs = [("A man sleeps.", "Nobody sleeps."), ("A man runs.", "A man moves.")]
    >>> SelectFields(1).transform(pairs)
    ['Nobody sleeps.', 'A man moves.']
    """

    _parameter_constraints: dict = {
        "fields": [str, Integral, list, tuple],
        "separator": [str],
    }

    def __init__(self, fields, *, separator=" "):
        self.fields = fields
        self.separator = separator

    def _view(self, X):
        fields = list(self.fields) if isinstance(self.fields, list | tuple) else [self.fields]
        if not fields:
            raise ValueError("fields is empty: name at least one.")
        columns = [[_text(value, field, i) for i, value in enumerate(values)]
                   for field in fields for values in [_field(X, field)]]  # fmt: skip
        texts = [self.separator.join(parts) for parts in zip(*columns, strict=True)]
        if isinstance(X, pd.DataFrame):
            name = fields[0] if len(fields) == 1 else None
            return pd.Series(texts, index=X.index, name=name, dtype=object)
        return texts

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        return tags


def _field(X, field):
    """Values of a field of all samples."""
    names = X.columns if isinstance(X, pd.DataFrame) else getattr(X, "column_names", None)
    if names is not None:
        if field not in names:
            raise ValueError(f"fields has {field!r}, but X has the columns {list(names)[:20]}.")
        return X[field]
    return [_value(sample, field, i) for i, sample in enumerate(X)]


def _value(sample, field, i):
    is_known = field in sample if isinstance(sample, Mapping) else False
    if isinstance(sample, tuple | list) and isinstance(field, Integral):
        is_known = -len(sample) <= field < len(sample)
    if not is_known:
        raise ValueError(
            f"X[{i}] = {sample!r} has no field {field!r}: fields are names of dicts and "
            "DataFrames, or positions in tuples."
        )
    return sample[field]


def _text(value, field, i):
    if not isinstance(value, str):
        raise ValueError(f"the field {field!r} of X[{i}] is {value!r}, which is no text.")
    return value
