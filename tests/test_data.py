"""GroupedData, group encoding, and the adapters that turn any X into samples."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from numpy.testing import assert_array_equal
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils import shuffle
from torch.utils.data import Dataset, IterableDataset, TensorDataset
from torchvision.transforms.functional import to_pil_image

from skspurious.data import (
    DatasetSamples,
    GroupedData,
    ImagePaths,
    TensorSamples,
    as_samples,
    encode_groups,
    make_sample_group,
    unpack_groups,
)
from skspurious.data._samples import input_kind


class Squares(Dataset):
    """Map-style dataset: sample i is (tensor([i, i * i]), label)."""

    def __init__(self, n=6):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if not 0 <= i < self.n:
            raise IndexError(i)
        return torch.tensor([float(i), float(i * i)]), i % 2


class HubDataset:
    """The part of a Hugging Face Dataset's interface that is used."""

    def __init__(self, rows):
        self.rows = rows
        self.column_names = ["text"]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]

    def select(self, indices):
        return HubDataset([self.rows[i] for i in indices])


# --------------------------------------------------------------------------------------
# make_sample_group


def test_make_sample_group_by_hand():
    # classes a, b -> 0, 1; attributes x, y, z -> 0, 1, 2; group = 3 * class + attribute
    group = make_sample_group(["b", "a", "a", "b"], ["x", "z", "x", "y"])
    assert_array_equal(group, [3, 2, 0, 4])
    assert group.dtype == np.int64


def test_make_sample_group_numbers_labels_by_their_sorted_values():
    assert_array_equal(make_sample_group([10, -5, 10], [7, 7, 3]), [3, 1, 2])


def test_make_sample_group_takes_tensors_and_series():
    expected = [0, 3, 1]
    assert_array_equal(make_sample_group(torch.tensor([0, 1, 0]), np.array([0, 1, 1])), expected)
    y, attribute = pd.Series([0, 1, 0], index=[7, 8, 9]), pd.Categorical(["a", "b", "b"])
    assert_array_equal(make_sample_group(y, attribute), expected)


def test_make_sample_group_raises_on_different_lengths():
    with pytest.raises(ValueError, match="attribute has 3 rows for 2 samples"):
        make_sample_group([0, 1], [0, 1, 1])


def test_make_sample_group_raises_on_a_missing_attribute():
    with pytest.raises(ValueError, match="attribute has 1 missing values, the first at row 1"):
        make_sample_group([0, 1], ["a", None])


# --------------------------------------------------------------------------------------
# encode_groups


def _reference_encode_groups(values):
    """Position of each value among the distinct ones, sorted."""
    distinct = sorted(set(values))
    return [distinct.index(v) for v in values], distinct


@pytest.mark.parametrize(
    "values",
    [
        [3, 1, 3, 7],
        [0.5, -1.0, 0.5],
        ["water", "land", "water"],
        [True, False, True],
        [("cow", 1), ("camel", 0), ("cow", 0), ("cow", 1)],
        [np.int64(4), np.int64(2), np.int64(4)],
    ],
)
def test_encode_groups_equals_reference(values):
    group, groups = encode_groups(values)
    expected, distinct = _reference_encode_groups(values)
    assert_array_equal(group, expected)
    assert group.dtype == np.int64
    assert groups.shape == (len(distinct),)
    assert groups.tolist() == distinct


@pytest.mark.parametrize(
    "container",
    [
        list,
        tuple,
        np.array,
        pd.Series,
        pd.Index,
        pd.Categorical,
        lambda v: np.array(v, dtype=object),
        lambda v: pd.Series(v, dtype="string"),
        lambda v: pd.Series(v, dtype="category"),
        lambda v: pd.DataFrame({"group": v}),
        lambda v: np.array(v)[:, None],
    ],
)
def test_encode_groups_is_the_same_for_every_container(container):
    group, groups = encode_groups(container(["b", "a", "b", "c"]))
    assert_array_equal(group, [1, 0, 1, 2])
    assert groups.tolist() == ["a", "b", "c"]


def test_encode_groups_takes_tensors():
    group, groups = encode_groups(torch.tensor([5, 2, 5]))
    assert_array_equal(group, [1, 0, 1])
    assert groups.tolist() == [2, 5]


@pytest.mark.parametrize(
    "columns",
    [
        np.array([["cow", "sand"], ["cow", "grass"], ["camel", "sand"]]),
        np.array([["cow", "sand"], ["cow", "grass"], ["camel", "sand"]], dtype=object),
        [["cow", "sand"], ["cow", "grass"], ["camel", "sand"]],
        pd.DataFrame({"animal": ["cow", "cow", "camel"], "place": ["sand", "grass", "sand"]}),
    ],
)
def test_encode_groups_crosses_columns(columns):
    group, groups = encode_groups(columns)
    # sorted by the first column, then the second; cells that do not occur get no number
    assert groups.tolist() == [("camel", "sand"), ("cow", "grass"), ("cow", "sand")]
    assert_array_equal(group, [2, 1, 0])


def test_encode_groups_crosses_columns_of_different_types():
    frame = pd.DataFrame({"label": [1, 0, 1], "place": ["b", "a", "a"], "year": [1.5, 2.5, 1.5]})
    group, groups = encode_groups(frame)
    assert groups.tolist() == [(0, "a", 2.5), (1, "a", 1.5), (1, "b", 1.5)]
    assert_array_equal(group, [2, 0, 1])


def test_encode_groups_with_known_groups_keeps_their_numbers():
    group, groups = encode_groups(["c", "a"], groups=np.array(["b", "c", "a"]))
    assert_array_equal(group, [1, 2])
    assert groups.tolist() == ["b", "c", "a"]


def test_encode_groups_with_known_tuples():
    known = encode_groups(np.array([[0, 0], [0, 1], [1, 1]]))[1]
    group, _ = encode_groups(np.array([[1, 1], [0, 0]]), groups=known)
    assert_array_equal(group, [2, 0])


def test_encode_groups_round_trip():
    values = np.array(["q", "b", "q", "a", "z"])
    group, groups = encode_groups(values)
    assert_array_equal(groups[group], values)
    again, _ = encode_groups(values, groups=groups)
    assert_array_equal(again, group)


def test_encode_groups_raises_on_unseen_values():
    with pytest.raises(ValueError, match=r"not among the known groups: \['d'\]"):
        encode_groups(["a", "d"], groups=["a", "b"])


def test_encode_groups_raises_on_wrong_length():
    with pytest.raises(ValueError, match="sample_group has 3 rows for 4 samples"):
        encode_groups([0, 1, 1], n_samples=4)


@pytest.mark.parametrize(
    "values",
    [
        [0.0, np.nan],
        ["a", None],
        [None, 1],
        np.array(["a", np.nan], dtype=object),
        pd.Series([1, None], dtype="Int64"),
        pd.Categorical(["a", None]),
        np.array(["2020-01-01", "NaT"], dtype="datetime64[D]"),
        pd.DataFrame({"a": [0, 1], "b": ["x", None]}),
        [("a", 1), ("b", None)],
    ],
)
def test_encode_groups_raises_on_missing_values(values):
    with pytest.raises(ValueError, match="missing values, the first at row"):
        encode_groups(values)


def test_encode_groups_raises_on_three_dimensions():
    with pytest.raises(ValueError, match="must have shape"):
        encode_groups(np.zeros((2, 2, 2)))


def test_encode_groups_of_nothing():
    group, groups = encode_groups([])
    assert len(group) == len(groups) == 0


def test_encode_groups_keeps_values_that_cannot_be_compared_apart():
    group, groups = encode_groups(["a", 1, "a", (2, 3)])
    assert len(groups) == 3
    assert [groups[g] for g in group] == ["a", 1, "a", (2, 3)]


def test_encode_groups_is_equivariant_under_permutation_of_the_samples():
    values = np.random.default_rng(0).choice(["a", "b", "c"], 50)
    order = np.random.default_rng(1).permutation(50)
    group, groups = encode_groups(values)
    permuted, groups_permuted = encode_groups(values[order])
    assert_array_equal(permuted, group[order])
    assert_array_equal(groups, groups_permuted)


# --------------------------------------------------------------------------------------
# GroupedData

KINDS = {
    "array": np.arange(12.0).reshape(6, 2),
    "images": np.arange(6 * 12, dtype=np.uint8).reshape(6, 3, 2, 2),
    "tensor": torch.arange(12).reshape(6, 2),
    "frame": pd.DataFrame({"a": range(6), "b": list("uvwxyz")}, index=range(10, 16)),
    "list": ["p", "q", "r", "s", "t", "u"],
    "strings": np.array(["p", "q", "r", "s", "t", "u"]),
    "series": pd.Series(["p", "q", "r", "s", "t", "u"]),
    "dataset": Squares(),
    "hub": HubDataset([{"text": str(i)} for i in range(6)]),
    "samples": TensorSamples(torch.arange(12).reshape(6, 2)),
    "sparse": scipy.sparse.csr_array(np.arange(12.0).reshape(6, 2)),
}


def rows_of(data):
    """The rows of any kind of data, as text."""
    if scipy.sparse.issparse(data):
        data = data.toarray()
    if isinstance(data, pd.DataFrame | pd.Series):
        data = data.to_numpy()
    if isinstance(data, TensorSamples):
        data = data.tensor
    return [str(data[i]) for i in range(len(data))]


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (np.array([4, 0, 4]), [4, 0, 4]),
        ([1, 2], [1, 2]),
        (np.array([True, False, False, True, False, True]), [0, 3, 5]),
        (slice(1, 5, 2), [1, 3]),
        ((np.array([5, 1]), Ellipsis), [5, 1]),
        (slice(None), [0, 1, 2, 3, 4, 5]),
        (2, [2]),
        ([-1], [5]),
    ],
)
def test_grouped_data_slices_rows_and_groups_together(kind, index, expected):
    group = np.array(["g0", "g1", "g2", "g3", "g4", "g5"])
    part = GroupedData(kind, group)[index]
    assert isinstance(part, GroupedData)
    assert len(part) == part.shape[0] == len(expected)
    assert rows_of(part.data) == [rows_of(kind)[i] for i in expected]
    assert_array_equal(part.sample_group, group[expected])


def test_grouped_data_slices_again(kind):
    part = GroupedData(kind, range(6))[[5, 3, 1]][[2, 0]]
    assert rows_of(part.data) == [rows_of(kind)[i] for i in (1, 5)]
    assert_array_equal(part.sample_group, [1, 5])


def test_grouped_data_of_no_rows(kind):
    part = GroupedData(kind, range(6))[[]]
    assert len(part) == len(part.sample_group) == 0


def test_grouped_data_keeps_the_kind_of_its_data(kind):
    part = GroupedData(kind, range(6))[[0, 1]].data
    if not isinstance(kind, Dataset):  # a dataset becomes a view of some of its rows
        assert type(part) is type(kind)
    assert getattr(part, "dtype", None) == getattr(kind, "dtype", None)


def test_grouped_data_does_not_read_a_dataset_when_sliced():
    class Unreadable(Squares):
        def __getitem__(self, i):
            raise AssertionError("read")

    part = GroupedData(Unreadable(), range(6))[[1, 2]]
    assert len(part) == 2


def test_grouped_data_crosses_nothing_but_slices_every_column():
    part = GroupedData(np.zeros((3, 1)), [["a", 0], ["b", 1], ["c", 2]])[[2, 0]]
    assert part.sample_group.tolist() == [["c", 2], ["a", 0]]


def test_grouped_data_refuses_to_select_columns():
    with pytest.raises(IndexError, match="selects rows alone"):
        GroupedData(np.zeros((3, 2)), [0, 1, 2])[:, [0]]


def test_grouped_data_refuses_a_mask_of_another_length():
    with pytest.raises(ValueError, match="inconsistent numbers"):
        GroupedData(np.zeros((3, 2)), [0, 1, 2])[np.array([True, False])]


def test_grouped_data_refuses_another_length():
    with pytest.raises(ValueError, match="inconsistent numbers"):
        GroupedData(np.zeros((3, 2)), [0, 1])


def test_grouped_data_is_not_wrapped_twice():
    with pytest.raises(TypeError, match=r"pass data\.data"):
        GroupedData(GroupedData(np.zeros((3, 2)), [0, 1, 2]), [0, 1, 2])


def test_grouped_data_without_groups_is_only_indexable():
    part = GroupedData(Squares(), None)[[3, 1]]
    assert part.sample_group is None
    assert len(part) == 2


def test_grouped_data_keeps_its_inferrer_when_sliced_and_pickled():
    X = GroupedData(np.zeros((3, 2)), [0, 1, 2], group_inferrer="inferrer")
    assert X[[0]].group_inferrer == "inferrer"
    again = pickle.loads(pickle.dumps(X))
    assert again.group_inferrer == "inferrer"
    assert_array_equal(again.sample_group, X.sample_group)


def test_grouped_data_is_seen_as_an_array_by_scikit_learn():
    data = np.arange(8.0).reshape(4, 2)
    X = GroupedData(data, range(4))
    assert_array_equal(StandardScaler().fit_transform(X), StandardScaler().fit_transform(data))
    train, test = train_test_split(X, random_state=0)
    assert_array_equal(train.data[:, 0] / 2, train.sample_group)
    assert len(train) + len(test) == 4
    shuffled = shuffle(X, random_state=0)
    assert_array_equal(shuffled.data[:, 0] / 2, shuffled.sample_group)


def test_grouped_data_as_an_array_that_is_asked_to_be_a_copy_is_a_copy():
    data = torch.zeros(3, 2)
    array = np.array(GroupedData(data, range(3)))
    array[:] = 1
    assert data.sum() == 0


def test_grouped_data_says_what_it_holds():
    text = repr(GroupedData(np.zeros((3, 2)), [0, 1, 1]))
    assert text == "GroupedData(ndarray of shape (3, 2), 2 groups)"


def test_grouped_data_can_be_copied():
    X = copy.deepcopy(GroupedData(np.zeros((3, 2)), [0, 1, 1]))
    assert X.shape == (3, 2)


def test_unpack_groups_prefers_explicit_groups_and_then_forgets_the_inferrer():
    X = GroupedData([[1.0], [2.0]])
    X.sample_group, X.group_inferrer = [1], "inferrer"
    X.data = "data"
    assert unpack_groups(X) == ("data", [1], "inferrer")
    assert unpack_groups(X, [2]) == ("data", [2], None)
    assert unpack_groups("data", [2]) == ("data", [2], None)
    assert unpack_groups("data") == ("data", None, None)


# --------------------------------------------------------------------------------------
# input_kind, as_samples


@pytest.mark.parametrize(
    ("X", "expected"),
    [
        (np.zeros((2, 3)), "table"),
        (np.zeros((2, 3), dtype=np.uint8), "table"),
        ([[0.0, 1.0], [2.0, 3.0]], "table"),
        ([(0.0, 1.0), (2.0, 3.0)], "table"),
        ([np.zeros(3), np.zeros(3)], "table"),
        (pd.DataFrame({"a": [1, 2]}), "table"),
        (scipy.sparse.csr_array(np.eye(2)), "table"),
        ([], "table"),
        (np.zeros((2, 3, 4, 4)), "array"),
        (np.zeros((2, 3, 4, 4), dtype=np.uint8), "array"),
        (torch.zeros(2, 3), "tensor"),
        (torch.zeros(2, 3, 4, 4), "tensor"),
        (["a.png", "b.png"], "strings"),
        (np.array(["a.png", "b.png"]), "strings"),
        (np.array(["a.png", "b.png"], dtype=object), "strings"),
        (pd.Series(["a.png", "b.png"]), "strings"),
        (Squares(), "dataset"),
        (HubDataset([{"text": "a"}]), "dataset"),
        ([{"ids": torch.zeros(3)}, {"ids": torch.zeros(3)}], "dataset"),
        ([(torch.zeros(3), 0), (torch.zeros(3), 1)], "dataset"),
        ([(np.zeros(3), 0), (np.zeros(3), 1)], "dataset"),
        ([torch.zeros(3, 4, 4)] * 2, "dataset"),
        ([np.zeros((3, 4, 4))] * 2, "dataset"),
        (TensorSamples(torch.zeros(2, 3)), "samples"),
        (DatasetSamples(Squares()), "samples"),
    ],
)
def test_input_kind(X, expected):
    assert input_kind(X) == expected


def test_input_kind_refuses_an_iterable_dataset():
    class Stream(IterableDataset):
        def __iter__(self):
            yield 0

    with pytest.raises(TypeError, match="without a length"):
        input_kind(Stream())


def test_as_samples_of_a_float32_array_shares_its_memory():
    X = np.zeros((4, 3, 2, 2), dtype=np.float32)
    assert as_samples(X).tensor.data_ptr() == X.__array_interface__["data"][0]


def test_as_samples_keeps_uint8():
    assert as_samples(np.zeros((2, 3, 4, 4), dtype=np.uint8)).tensor.dtype == torch.uint8


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32, bool, np.uint16, ">f4"])
def test_as_samples_makes_other_numbers_float32(dtype):
    X = np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2).astype(dtype)
    tensor = as_samples(X).tensor
    assert tensor.dtype == torch.float32
    assert_array_equal(tensor.numpy(), X.astype(float))


def test_as_samples_keeps_the_dtype_of_a_tensor():
    ids = torch.tensor([[1, 2], [3, 4]])
    assert as_samples(ids).tensor.dtype == torch.int64


@pytest.mark.parametrize("change", ["read-only", "reversed", "transposed"])
def test_as_samples_takes_awkward_arrays(change):
    X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    if change == "read-only":
        X.flags.writeable = False
    X = {"read-only": X, "reversed": X[::-1], "transposed": X.T}[change]
    assert_array_equal(as_samples(X).tensor.numpy(), X)


def test_tensor_samples_take():
    samples = as_samples(np.arange(8.0).reshape(4, 2)).take(np.array([3, 1]))
    assert_array_equal(samples.tensor.numpy(), [[6, 7], [2, 3]])
    assert samples.sample_shape == (2,)
    assert len(samples) == 2


def test_dataset_samples_take_twice_and_collate():
    samples = as_samples(Squares()).take(np.array([5, 4, 3])).take(np.array([2, 0]))
    assert len(samples) == 2
    batch = samples.collate([samples[i] for i in range(2)])
    assert_array_equal(batch.numpy(), [[3, 9], [5, 25]])  # the labels are left out


def test_as_samples_gives_a_part_of_a_dataset_the_collate_fn():
    part = GroupedData(Squares(), None)[[4, 2]].data
    samples = as_samples(part, collate_fn=len)
    assert samples.collate([samples[0], samples[1]]) == 2
    assert samples[0][0][0] == 4


def test_as_samples_returns_samples_unchanged():
    for samples in (TensorSamples(torch.zeros(2, 3)), DatasetSamples(Squares())):
        assert as_samples(samples) is samples


def test_dataset_samples_collate_raises_on_different_shapes():
    samples = [torch.zeros(3, 4, 4), torch.zeros(3, 5, 4)]
    with pytest.raises(ValueError, match=r"differ in shape: \[\(3, 4, 4\), \(3, 5, 4\)\]"):
        DatasetSamples(samples).collate(samples)


def test_dataset_samples_of_a_tensor_dataset():
    samples = as_samples(TensorDataset(torch.arange(6.0).reshape(3, 2), torch.arange(3)))
    assert_array_equal(samples.collate([samples[2]]).numpy(), [[4, 5]])


def test_dataset_samples_of_dicts_collate_to_a_dict():
    samples = as_samples(HubDataset([{"ids": torch.tensor([i, i])} for i in range(3)]))
    batch = samples.collate([samples[0], samples[2]])
    assert_array_equal(batch["ids"].numpy(), [[0, 0], [2, 2]])


def test_image_paths_reads_uint8_rgb(tmp_path):
    image = torch.arange(48, dtype=torch.uint8).reshape(3, 4, 4)
    to_pil_image(image).save(tmp_path / "colour.png")
    to_pil_image(image[0]).save(tmp_path / "grey.png")
    images = ImagePaths([tmp_path / "colour.png", tmp_path / "grey.png"])
    assert len(images) == 2
    assert torch.equal(images[0], image)
    assert torch.equal(images[1], image[:1].expand(3, 4, 4))  # grey becomes RGB
    assert ImagePaths([tmp_path / "grey.png"], transform=torch.sum)[0] == 3 * sum(range(16))


def test_image_paths_says_which_file_is_missing_and_what_texts_need(tmp_path):
    images = ImagePaths(["a sentence, not a path"])
    with pytest.raises(ValueError, match=r"X\[0\] = 'a sentence, not a path' is not a file.*texts"):
        images[0]
