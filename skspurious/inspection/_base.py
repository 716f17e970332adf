"""What all displays share: colours, axes, and the words for a group."""

# Told apart with colour-blind eyes and in grey.
COLOR, WORST_COLOR, LINE_COLOR = "#8fb3d1", "#c1272d", "#333333"
AS_IT_IS = {"parse_math": False}  # of text that users give: a dollar sign is no formula


def make_axes(name, ax, figsize, layout="constrained"):
    """The axes to draw on, on a figure of their own unless given."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{name} draws with matplotlib, which cannot be imported. "
            "Install it with: pip install skspurious[plot]"
        ) from error
    return plt.subplots(figsize=figsize, layout=layout)[1] if ax is None else ax


def row_label(group, n):
    """A group and its number of samples."""
    name = ", ".join(str(part) for part in group) if isinstance(group, tuple) else str(group)
    return f"{name}  (n = {int(n)})"
