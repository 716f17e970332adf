"""TextStatistics: a table of how texts are written, without what they say."""

import re

import numpy as np

from skspurious.data import unpack_groups
from skspurious.views._base import TableCarrier, TableTransformer
from skspurious.views._texts import list_of

_COLUMNS = {
    "n_characters": len,
    "n_words": lambda text: len(text.split()),
    "n_sentences": lambda text: len(re.findall(r"[.!?]+", text)),
    "word_length": lambda text: len(re.sub(r"\s", "", text)) / max(len(text.split()), 1),
    "distinct_words": lambda text: len(set(text.lower().split())) / max(len(text.split()), 1),
    "capitals": lambda text: _share(text, str.isupper),
    "digits": lambda text: _share(text, str.isdigit),
    "punctuation": lambda text: _share(text, lambda c: not c.isalnum() and not c.isspace()),
    "exclamation_marks": lambda text: text.count("!"),
    "question_marks": lambda text: text.count("?"),
    "quotes": lambda text: len(re.findall("[\"'\u201c\u201d\u2018\u2019]", text)),
    "brackets": lambda text: len(re.findall(r"[()\[\]{}<>]", text)),
    "links": lambda text: len(re.findall(r"https?://|www\.", text)),
    "lines": lambda text: text.count("\n") + 1,
}


class TextStatistics(TableCarrier, TableTransformer):
    """A few numbers about how every text is written, in named columns.

    Lengths, capitals, punctuation and links say little of what a text is about, but often much
    of where it comes from.

    .. versionadded:: 0.1

    See Also
    --------
    KeepWords : A view of a few words.
    ImageStatistics : The same for pictures.

    Notes
    -----
    Columns are counts of characters, words, sentences (runs of ``.!?``), exclamation and question
    marks, quotes, brackets, links and lines; the mean length of words and the share of distinct
    ones; and the shares of capitals, digits and punctuation among the characters.

    Examples
    --------
    >>> from skspurious.views import TextStatistics
    >>> statistics = TextStatistics().set_output(transform="pandas")
    >>> statistics.transform(["Hello!", "a b"])[["n_words", "exclamation_marks"]]
       n_words  exclamation_marks
    0      1.0                1.0
    1      2.0                0.0
    """

    def fit(self, X, y=None):
        """Nothing is learned.

        Parameters
        ----------
        X : list, array or Series of str, or GroupedData of them
        y : Ignored
            Only there for Pipelines.

        Returns
        -------
        self : TextStatistics

        Raises
        ------
        ValueError
            If a text is no str.
        """
        list_of(unpack_groups(X)[0], type(self).__name__)
        return self

    def _table(self, X):
        texts = list_of(X, type(self).__name__)
        rows = [[column(text) for column in _COLUMNS.values()] for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(texts), len(_COLUMNS))

    def get_feature_names_out(self, input_features=None):
        """Names of the columns.

        Parameters
        ----------
        input_features : Ignored
            Texts have no names.

        Returns
        -------
        names : ndarray of str
        """
        return np.array(list(_COLUMNS), dtype=object)

    def __sklearn_is_fitted__(self):
        return True

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _share(text, is_kind):
    return sum(map(is_kind, text)) / max(len(text), 1)
