"""Generated inputs: every public name answers rightly, or says what is wrong with an argument.

SKSPURIOUS_FUZZ_EXAMPLES is how many are tried, 500 by default and then always the same; ``make fuzz
N=10000`` tries other ones. What fails is printed as a call of ``check``, to be pasted into a test.
"""

import importlib
import os

from hypothesis import HealthCheck, given, seed, settings
from registry import ENTRIES, VIEWS, by_name, ignored_warnings
from spoiled import CALLS, cases, check

import skspurious

N_EXAMPLES = int(os.environ.get("SKSPURIOUS_FUZZ_EXAMPLES", "500"))
SEED = os.environ.get("SKSPURIOUS_FUZZ_SEED")
pytestmark = ignored_warnings()

# Public names that take no data, and why nothing of theirs is spoiled.
EXEMPT = {
    "data.DatasetSamples": "an adapter, which as_samples makes",
    "data.ImagePaths": "files; test_pictures.py spoils them",
    "data.TensorSamples": "an adapter, which as_samples makes",
    "datasets.fetch_spuco_mnist": "reads files that are downloaded",
    "embedding.TorchFeatureExtractor": "TorchFeatureExtractor.fit",
    "functional.lowest_proportion_interval": "counts; test_lowest_proportion.py spoils them",
    "group_inference.Evidence": "a result",
    "group_inference.SemiSupervisedGroupInferrer": "SemiSupervisedGroupInferrer.fit",
    "group_inference.SpuriousGroupInferrer": "SpuriousGroupInferrer.fit",
    "group_inference.ViewJury": "ViewJury.fit",
    "inspection.HistoryDisplay": "takes a fitted estimator alone",
    "inspection.ShortcutTest": "a result",
    "inspection.write_report": "takes displays and texts",
    "metrics.GroupReport": "a result",
    "metrics.WorstGroupInterval": "a result",
    "metrics.worst_group_interval": "the checks of group_accuracy",
    "model_selection.SelectionTrust": "a result",
    "pipeline.Pipeline": "Pipeline.fit",
}
FAMILIES = [
    *("data", "datasets", "embedding", "functional", "group_inference", "inspection", "metrics"),
    *("mitigation", "model_selection", "persistence", "pipeline", "views"),
]


def test_every_public_name_is_tried():
    tried = set(CALLS) | set(EXEMPT)
    missing = {
        f"{family}.{name}"
        for family in FAMILIES
        for name in importlib.import_module(f"skspurious.{family}").__all__
        if f"{family}.{name}" not in tried and f"{name}.fit" not in CALLS
    }
    assert not missing
    assert {f"{name}.fit" for name in by_name(ENTRIES)} <= set(CALLS)
    assert {f"views.{name}" for name in by_name(VIEWS)} <= set(CALLS)
    assert not set(EXEMPT) & set(CALLS)
    assert skspurious.__all__  # each is in a family, see test_public_api.py


@settings(
    max_examples=N_EXAMPLES,
    deadline=None,
    derandomize=SEED is None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(case=cases())
def test_a_right_answer_or_an_error_that_names_the_argument(case):
    check(*case)


if SEED is not None:
    test_a_right_answer_or_an_error_that_names_the_argument = seed(int(SEED))(
        test_a_right_answer_or_an_error_that_names_the_argument
    )
