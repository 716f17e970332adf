"""Who sits on a jury: views by their names, and the samples as they are."""

from skspurious.views import standard_views

CLEAN = "clean"  # the name of the samples as they are, among the views


def resolve_views(X, views, clean, extractor):
    """Views by name, in the order in which they were given; the clean sample last.

    Parameters
    ----------
    X : samples, without groups
    views, clean, extractor : parameters of ViewJury

    Returns
    -------
    views : dict of str to transformer, classifier or columns
    """
    is_auto = isinstance(clean, str) and clean == "auto"
    if isinstance(views, str):
        if extractor is not None and not hasattr(extractor, "transform"):
            raise TypeError(
                f"extractor={extractor!r} has no transform: give a transformer that makes numbers "
                "of the samples, such as a TorchFeatureExtractor."
            )
        views, standard = standard_views(X, extractor=extractor)
        clean = standard if is_auto else clean
    else:
        views, clean = _by_name(views), None if is_auto else clean
    if clean is not None:
        views = {**views, CLEAN: clean}
    if not views:
        raise ValueError("views is empty: give at least one view, or views='auto'.")
    return views


def _by_name(views):
    """Views by their names, from a dict or a list of pairs."""
    pairs = list(views.items() if isinstance(views, dict) else views)
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"views={views!r}: give a dict of views, or a list of pairs (name, view).")
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names) or CLEAN in names or not all(isinstance(n, str) for n in names):
        raise ValueError(
            f"views has the names {names}: give each view a str of its own; {CLEAN!r} is that of "
            "the samples themselves, see the parameter clean."
        )
    return dict(pairs)
