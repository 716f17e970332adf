"""One vector a sample from networks of every kind: tokens, maps, with a head and without."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.utils.data import Dataset
from torchvision.models import resnet18
from torchvision.models.vision_transformer import VisionTransformer

from skspurious import ERMClassifier, TorchFeatureExtractor
from skspurious.data._tokenizers import as_collate

TEXTS = ["a film", "the plot of the film", "bad", "good good actor", "the film"] * 4
WORDS = sorted({word for text in TEXTS for word in text.split()})
Y = np.array(["bad" in text for text in TEXTS]).astype(int)


class Tokenizer:
    """Called as a tokenizer of transformers is, and gives what its BatchEncoding holds."""

    model_input_names = ["input_ids", "attention_mask"]
    calls: list = []

    def pad(self, encoded):
        raise NotImplementedError

    def __call__(self, text, padding=False, truncation=None, return_tensors=None):
        Tokenizer.calls.append((padding, truncation, return_tensors))
        ids = [[2 + WORDS.index(word) for word in t.split()] for t in text]
        ids = [[1, *row] for row in ids]
        if not padding:
            return Encoding(input_ids=ids)
        longest = max(map(len, ids))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
        return Encoding(input_ids=padded, attention_mask=(padded > 0).long())


class Labelled(Dataset):
    """Pairs of a text and a label."""

    def __len__(self):
        return len(TEXTS)

    def __getitem__(self, i):
        return TEXTS[i], 3


class Encoding(dict):
    """A BatchEncoding is a mapping, with methods of its own."""


class Hidden(dict):
    """An output of transformers: a mapping with attributes."""

    __getattr__ = dict.__getitem__


class Encoder(nn.Module):
    """A transformer without a head: a hidden state of every token, and perhaps a pooler."""

    def __init__(self, has_pooler, has_norm=True):
        super().__init__()
        self.embeddings = nn.Embedding(len(WORDS) + 2, 6)
        self.lin = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6) if has_norm else nn.Identity()
        self.pooler = nn.Linear(6, 6) if has_pooler else None

    def forward(self, input_ids, attention_mask):
        hidden = self.norm(self.lin(self.embeddings(input_ids)))
        output = {"last_hidden_state": hidden}
        if self.pooler is not None:
            output["pooler_output"] = self.pooler(hidden[:, 0]).tanh()
        return Hidden(output)


class Classifier(nn.Module):
    """The encoder with a head on the sum over the tokens."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(6, 2)

    def forward(self, input_ids, attention_mask):
        hidden = self.encoder(input_ids, attention_mask)["last_hidden_state"]
        return Hidden(logits=self.classifier((hidden * attention_mask[..., None]).sum(1)))


@pytest.fixture
def seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def hidden_of(encoder, text):
    with torch.no_grad():
        return encoder(**Tokenizer()([text], padding=True))["last_hidden_state"][0].numpy()


@pytest.mark.parametrize("has_pooler", [True, False])
@pytest.mark.parametrize("has_norm", [True, False])
@pytest.mark.parametrize(
    ("pooling", "by_hand"),
    [("auto", lambda h: h.mean(0)), ("mean", lambda h: h.mean(0)), ("cls", lambda h: h[0])],
)
def test_a_transformer_without_a_head(seed, has_pooler, has_norm, pooling, by_hand):
    """Padding has no part in the mean: every text is as it would be alone."""
    encoder = Encoder(has_pooler, has_norm)
    extractor = TorchFeatureExtractor(
        encoder, pooling=pooling, collate_fn=Tokenizer(), batch_size=3
    )
    expected = np.stack([by_hand(hidden_of(encoder, text)) for text in TEXTS])
    assert_allclose(extractor.fit_transform(TEXTS), expected, atol=1e-6)


def test_a_transformer_with_a_head_gives_what_the_head_is_given(seed):
    encoder = Encoder(has_pooler=True)
    extractor = TorchFeatureExtractor(Classifier(encoder), collate_fn=Tokenizer())
    expected = np.stack([hidden_of(encoder, text).sum(0) for text in TEXTS])
    assert_allclose(extractor.fit_transform(TEXTS), expected, atol=1e-6)


@pytest.mark.parametrize("layer", ["lin", "norm"])
def test_a_layer_of_tokens(seed, layer):
    encoder = Encoder(has_pooler=True)
    extractor = TorchFeatureExtractor(
        Classifier(encoder), layer=f"encoder.{layer}", collate_fn=Tokenizer()
    )
    with torch.no_grad():
        hidden = encoder.lin(
            encoder.embeddings(Tokenizer()(["the film"], padding=True)["input_ids"])
        )
        hidden = hidden if layer == "lin" else encoder.norm(hidden)
    assert_allclose(extractor.fit(TEXTS).transform(["the film", TEXTS[1]])[0],
                    hidden[0].mean(0), atol=1e-6)  # fmt: skip


def test_tokens_side_by_side_need_texts_of_one_length(seed):
    extractor = TorchFeatureExtractor(
        Encoder(False), pooling=None, collate_fn=Tokenizer(), batch_size=1
    )
    same = ["a film", "the plot"]
    assert extractor.fit_transform(same).shape == (2, 18)
    with pytest.raises(ValueError, match="as texts of different length do with pooling=None"):
        extractor.fit_transform(TEXTS)


def test_a_tokenizer_is_a_collate_fn(seed):
    Tokenizer.calls = []
    clf = ERMClassifier(
        Classifier(Encoder(True)), collate_fn=Tokenizer(), max_epochs=30, lr=0.1, random_state=0
    ).fit(TEXTS, Y)
    assert set(Tokenizer.calls) == {(True, True, "pt")}
    assert clf.score(TEXTS, Y) == 1.0
    by_hand = ERMClassifier(
        clf.module,
        collate_fn=lambda texts: dict(Tokenizer()(texts, padding=True)),
        **{k: getattr(clf, k) for k in ("max_epochs", "lr", "random_state")},
    ).fit(TEXTS, Y)
    assert_allclose(by_hand.predict_proba(TEXTS), clf.predict_proba(TEXTS))
    assert_allclose(clf.predict_proba(Labelled()), clf.predict_proba(TEXTS))
    with pytest.raises(TypeError, match="a sample of X is a int; a tokenizer as collate_fn takes"):
        as_collate(Tokenizer())([1, 2])


# --------------------------------------------------------------------------------------
# Pictures


PICTURES = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)


def output_of(network):
    with torch.no_grad():
        return network.eval()(torch.tensor(PICTURES).float() / 255)


def test_a_residual_network_without_a_head(seed):
    network = resnet18(num_classes=5)
    with_head = TorchFeatureExtractor(network).fit_transform(PICTURES)
    network.fc = nn.Identity()
    assert_allclose(with_head, output_of(network), atol=1e-5)
    assert_allclose(TorchFeatureExtractor(network).fit_transform(PICTURES), with_head, atol=1e-5)


def test_a_vision_transformer_without_a_head(seed):
    network = VisionTransformer(32, 16, 2, 2, 8, 16, num_classes=5)
    with_head = TorchFeatureExtractor(network).fit_transform(PICTURES)
    network.heads = nn.Identity()
    expected = output_of(network)
    assert_allclose(with_head, expected, atol=1e-5)
    assert_allclose(TorchFeatureExtractor(network).fit_transform(PICTURES), expected, atol=1e-5)


def test_maps_are_pooled_over_their_places(seed):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    maps = output_of(network).numpy()
    for pooling, expected in (("auto", maps.mean((2, 3))), (None, maps.reshape(4, -1))):
        Z = TorchFeatureExtractor(network, pooling=pooling).fit_transform(PICTURES)
        assert_allclose(Z, expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"pooling='cls' takes the first token, but.*maps"):
        TorchFeatureExtractor(network, pooling="cls").fit(PICTURES)
    named = nn.Sequential(*network, nn.Flatten(), nn.Linear(3600, 2))
    Z = TorchFeatureExtractor(named, layer="1").fit_transform(PICTURES)
    assert_allclose(Z, maps.mean((2, 3)), atol=1e-5)
