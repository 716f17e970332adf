"""Every method on texts (tokenizer, dict batches) and on tables (ColumnTransformer)."""

import numpy as np
import pandas as pd
import pytest
import torch
from registry import CLASSIFIERS
from sklearn.compose import make_column_transformer
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn

from skspurious import (
    BalancedRetrainer,
    ERMClassifier,
    GroupedData,
    SpuriousGroupInferrer,
    TorchFeatureExtractor,
)
from skspurious.group_inference import KMeansGroups
from skspurious.pipeline import make_pipeline

all_classifiers = pytest.mark.parametrize("entry", CLASSIFIERS, ids=lambda entry: entry.name)
WORDS = ["good", "bad", "film", "horror", "romance", "actor", "plot", "the"]


def tokenize(texts):
    """Ids and mask, padded to the longest text of the batch, as tokenizers of transformers do."""
    ids = [[1 + WORDS.index(word) for word in text.split()] for text in texts]
    longest = max(len(row) for row in ids)
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
    return {"input_ids": padded, "attention_mask": (padded > 0).long()}


class Output(dict):
    """What models of transformers return: a mapping with attributes."""

    __getattr__ = dict.__getitem__


class TextModel(nn.Module):
    """Sequence classification in the manner of transformers."""

    def __init__(self, n_classes=2):
        super().__init__()
        self.embeddings = nn.Embedding(len(WORDS) + 1, 8, padding_idx=0)
        self.pooler = nn.Linear(8, 8)
        self.classifier = nn.Linear(8, n_classes)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.unsqueeze(-1)
        mean = (self.embeddings(input_ids) * mask).sum(1) / mask.sum(1)
        return Output(logits=self.classifier(self.pooler(mean).tanh()))


@pytest.fixture(scope="module")
def reviews():
    """Sentiment is a word; the genre goes with it in nine reviews of ten."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, size=120)
    genre = np.where(rng.random(120) < 0.9, y, 1 - y)
    texts = []
    for label, kind in zip(y, genre):
        words = [["bad", "good"][label], ["horror", "romance"][kind]]
        words += rng.choice(["film", "actor", "plot", "the"], size=rng.integers(1, 5)).tolist()
        texts.append(" ".join(rng.permutation(words)))
    return texts, np.array(["negative", "positive"])[y], 2 * y + genre


@pytest.mark.filterwarnings("ignore::UserWarning")  # of stages cut short
@all_classifiers
def test_texts(reviews, entry):
    texts, y, group = reviews
    clf = entry(
        TextModel,
        collate_fn=tokenize,
        optimizer="adam",
        lr=0.02,
        max_epochs=8,
        batch_size=32,
        random_state=0,
    )
    clf.fit(texts, y, sample_group=group)
    proba = clf.predict_proba(texts)
    assert proba.shape == (120, 2)
    assert (clf.classes_[proba.argmax(1)] == y).mean() > 0.75
    # A text's prediction does not depend on how far its batch is padded.
    np.testing.assert_allclose(clf.predict_proba(texts[:1]), proba[:1], atol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")
@all_classifiers
def test_a_table_through_a_column_transformer(entry):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 60)
    attribute = np.where(rng.random(120) < 0.8, y, 1 - y)
    table = pd.DataFrame(
        {
            "income": rng.normal(2.0 * y, 1.0),
            "age": rng.normal(40, 10, size=120),
            "city": np.where(attribute, "Riga", "Oslo"),
        },
        index=rng.permutation(120),
    )
    columns = make_column_transformer(
        (StandardScaler(), ["income", "age"]), (OneHotEncoder(sparse_output=False), ["city"])
    )
    model = make_pipeline(columns, entry(lr=0.1, max_epochs=5, random_state=0))
    model.fit(GroupedData(table, 2 * y + attribute), y)
    assert model.predict(table).shape == (120,)
    if entry.takes_inferrer:  # others train on groups of their own, which here are none
        assert model.score(table, y) > 0.6
    assert model[-1].n_features_in_ == 4


def test_groups_of_texts_are_inferred(reviews):
    texts, y, _ = reviews
    first = ERMClassifier(
        TextModel, collate_fn=tokenize, optimizer="adam", lr=0.02, max_epochs=3, random_state=0
    )
    extractor = TorchFeatureExtractor(first)
    inferrer = make_pipeline(
        extractor, SpuriousGroupInferrer(KMeansGroups(n_clusters=2), random_state=0)
    )
    clf = BalancedRetrainer(
        TextModel, group_inferrer=inferrer, collate_fn=tokenize, max_epochs=2, random_state=0
    ).fit(texts, y)
    assert len(clf.groups_) == 4
    assert clf.infer_groups(texts[:10], y[:10]).shape == (10,)
