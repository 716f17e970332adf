"""A tokenizer of transformers as a collate_fn."""


class TokenizerCollate:
    """Makes a batch of texts by a tokenizer: padded to the longest, truncated, as tensors.

    Parameters
    ----------
    tokenizer : tokenizer of transformers
        Called with a list of texts.
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, samples):
        texts = [s[0] if isinstance(s, tuple | list) else s for s in samples]
        strange = next((text for text in texts if not isinstance(text, str)), None)
        if strange is not None:
            raise TypeError(
                f"a sample of X is a {type(strange).__name__}; a tokenizer as collate_fn takes "
                "texts. Pass a list of str, or a collate_fn that takes these samples."
            )
        batch = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        return dict(batch)  # a BatchEncoding is no dict


def as_collate(collate_fn):
    """The function that makes a batch; a tokenizer is wrapped into one."""
    is_tokenizer = callable(getattr(collate_fn, "pad", None)) and hasattr(
        collate_fn, "model_input_names"
    )
    return TokenizerCollate(collate_fn) if is_tokenizer else collate_fn
