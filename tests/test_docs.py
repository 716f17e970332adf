"""Docstrings: examples run, attributes exist, parameters are complete and agree with the code."""

import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap

import numpy as np
import pytest
from torch import nn

import skspurious
from skspurious import (
    BalancedRetrainer,
    ERMClassifier,
    GroupDROClassifier,
    JTTClassifier,
    LastLayerRetrainer,
    NSFClassifier,
    PrunedRetrainer,
    PruSCNetwork,
    SpuriousGroupInferrer,
    SpuriousSamplePruner,
    TorchFeatureExtractor,
)
from skspurious.base import BaseTorchClassifier
from skspurious.mitigation import make_george, make_spare

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = RNG.integers(0, 2, 60)

FITTED = {
    "ERMClassifier": lambda: ERMClassifier(max_epochs=1).fit(X, Y),
    "GroupDROClassifier": lambda: GroupDROClassifier(max_epochs=1).fit(X, Y, sample_group=Y),
    "BalancedRetrainer": lambda: BalancedRetrainer(max_epochs=1).fit(X, Y, sample_group=Y),
    "JTTClassifier": lambda: JTTClassifier(max_epochs=1, up_weight=2.0, random_state=0).fit(X, Y),
    "LastLayerRetrainer": lambda: LastLayerRetrainer(Cs=[1.0]).fit(X, Y, sample_group=Y),
    "NSFClassifier": lambda: NSFClassifier(n_transform_steps=5, random_state=0).fit(X, Y),
    "PruSCNetwork": lambda: PruSCNetwork(
        max_epochs=1, n_clusters=2, mask_batch_size=8, mask_epochs=0, mask_steps=0, random_state=0
    ).fit(X, Y),
    "PrunedRetrainer": lambda: PrunedRetrainer(max_epochs=1, random_state=0).fit(X, Y),
    "SpuriousSamplePruner": lambda: SpuriousSamplePruner(score_epochs=1, random_state=0).fit(X, Y),
    "SpuriousGroupInferrer": lambda: SpuriousGroupInferrer(n_init=1).fit(X, Y),
    "TorchFeatureExtractor": lambda: TorchFeatureExtractor(nn.Linear(3, 2)).fit(X, Y),
}
ESTIMATORS = {name: getattr(skspurious, name) for name in FITTED}


def all_modules():
    yield skspurious
    for info in pkgutil.walk_packages(skspurious.__path__, "skspurious."):
        yield importlib.import_module(info.name)


def public_objects():
    """Every documented function and class of a public ``__all__``, once."""
    found = {}
    for module in all_modules():
        if any(part.startswith("_") for part in module.__name__.split(".")):
            continue
        for name in getattr(module, "__all__", []):
            value = getattr(module, name)
            if inspect.isfunction(value) or inspect.isclass(value):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


PUBLIC = public_objects()


def section(doc, title):
    """Entries of a section of a numpydoc docstring: name -> (type, description)."""
    doc = inspect.cleandoc(doc)
    match = re.search(rf"^{title}\n-+\n(.*?)(?=^\S[^\n]*\n-{{3,}}\n|\Z)", doc, re.S | re.M)
    entries = {}
    if match is None:
        return entries
    for line in match[1].splitlines():
        if line and not line.startswith(" "):
            names, _, kind = line.partition(" : ")
            for name in names.split(", "):
                entries[name.strip()] = [kind.strip(), ""]
        elif entries:
            for name in names.split(", "):
                entries[name.strip()][1] += line.strip() + " "
    return {name: (kind, text.strip()) for name, (kind, text) in entries.items()}


# --------------------------------------------------------------------------------------
# Examples


def doctests():
    finder = doctest.DocTestFinder(exclude_empty=True)
    seen = set()
    for module in all_modules():
        for test in finder.find(module, module.__name__, module=module):
            key = (test.filename, test.lineno)
            if test.examples and key not in seen:
                seen.add(key)
                yield pytest.param(test, id=test.name)


@pytest.mark.parametrize("test", list(doctests()))
def test_examples_run(test):
    runner = doctest.DocTestRunner(
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS, verbose=False
    )
    output = []
    runner.run(test, out=output.append, clear_globs=False)
    assert runner.failures == 0, "".join(output)


WITHOUT_EXAMPLE = {
    "skspurious._engine._callbacks.ProgressBar": "what verbose=1 shows",
    "skspurious.cli.main": "runs the demo",
    "skspurious.data.DatasetSamples": "what as_samples makes; its example stands there",
    "skspurious.data.ImagePaths": "needs files",
    "skspurious.data.TensorSamples": "what as_samples makes; its example stands there",
    "skspurious.functional._clustering.seed_centers": "a step of kmeans_centers",
    "skspurious.functional._difficulty.DifficultySplit": "what split_difficulty returns",
    "skspurious.functional._silhouette.SilhouetteScore": "what score_partitions returns",
    "skspurious.inspection._plots.HistoryDisplay": "needs a figure and a fitted network",
    "skspurious.metrics._report.GroupReport": "what group_report returns",
}


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - set(WITHOUT_EXAMPLE)))
def test_public_objects_have_an_example(name):
    assert ">>>" in inspect.getdoc(PUBLIC[name])


# --------------------------------------------------------------------------------------
# Parameters and attributes


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_parameter_is_documented_in_its_order(name):
    value = PUBLIC[name]
    if inspect.isclass(value) and "skspurious" not in getattr(value.__init__, "__module__", ""):
        return  # its constructor is another library's
    signature = inspect.signature(value)
    documented = list(section(inspect.getdoc(value) or "", "Parameters"))
    expected = []
    for parameter in signature.parameters.values():
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        expected.append(stars.get(parameter.kind, "") + parameter.name)
    assert sorted(documented) == sorted(expected)


def documented_default(kind):
    """The default that a type line states; a missing one raises KeyError."""
    match = re.search(r"default=(.+)$", kind)
    if match is None:
        raise KeyError(kind)
    return eval(match[1], {"__builtins__": {}})  # a literal, or 2**21


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_documented_defaults_are_the_defaults(name):
    value = PUBLIC[name]
    entries = section(inspect.getdoc(value) or "", "Parameters")
    for parameter in inspect.signature(value).parameters.values():
        if parameter.name not in entries or parameter.kind is parameter.VAR_KEYWORD:
            continue
        kind, _ = entries[parameter.name]
        if parameter.default is parameter.empty:
            assert "default=" not in kind, f"{parameter.name} has no default"
        else:
            assert documented_default(kind) == parameter.default, parameter.name


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_documented_attribute_exists_after_fit(name):
    fitted = FITTED[name]()
    documented = section(ESTIMATORS[name].__doc__, "Attributes")
    assert documented
    for attribute in documented:
        if attribute == "feature_names_in_":  # only of a DataFrame
            continue
        assert hasattr(fitted, attribute), f"{attribute} does not exist after fit"


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_learned_attribute_is_documented(name):
    fitted = FITTED[name]()
    learned = {k for k in vars(fitted) if k.endswith("_") and not k.startswith("_")}
    assert learned <= set(section(ESTIMATORS[name].__doc__, "Attributes"))


CLASSIFIERS = [c for c in ESTIMATORS.values() if issubclass(c, BaseTorchClassifier)]


# Shared parameters that have another default in a class, which its own words explain.
OWN_WORDING = {
    "NSFClassifier": {"monitor"},
    "PruSCNetwork": {"group_inferrer"},
    "PrunedRetrainer": {"monitor"},
}


@pytest.mark.parametrize("cls", CLASSIFIERS)
def test_shared_parameters_have_one_wording(cls):
    shared = section(BaseTorchClassifier.__doc__, "Parameters")
    own = section(cls.__doc__, "Parameters")
    for name in set(shared) - {"module"} - OWN_WORDING.get(cls.__name__, set()):
        assert own[name] == shared[name]


def test_parameters_of_the_extractor_mean_what_they_mean_in_classifiers():
    shared = section(BaseTorchClassifier.__doc__, "Parameters")
    own = section(TorchFeatureExtractor.__doc__, "Parameters")
    for name in ("device", "precision", "num_workers"):
        assert own[name] == shared[name]


@pytest.mark.parametrize("attribute", ["classes_", "module_", "history_", "best_epoch_"])
def test_shared_attributes_have_one_wording(attribute):
    entries = [section(cls.__doc__, "Attributes")[attribute] for cls in CLASSIFIERS]
    entries = [(kind, text.replace(" group weights,", "")) for kind, text in entries]
    assert len(set(entries)) == 1


@pytest.mark.parametrize("function", [make_spare, make_george])
def test_composed_methods_document_what_they_compose(function):
    entries = section(function.__doc__, "Parameters")
    assert "**params" in entries
    assert entries["module"][0] == section(ERMClassifier.__doc__, "Parameters")["module"][0]


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_estimators_have_the_sections_of_the_style(name):
    doc = inspect.cleandoc(ESTIMATORS[name].__doc__)
    titles = re.findall(r"^([A-Z][A-Za-z ]+)\n-{3,}$", doc, re.M)
    expected = ["Parameters", "Attributes", "See Also", "Notes", "References", "Examples"]
    assert [t for t in titles if t in expected] == [t for t in expected if t in titles]
    assert {"Parameters", "Attributes", "See Also", "Notes", "Examples"} <= set(titles)
    assert ".. versionadded::" in doc
    assert doc.split("\n", 1)[0].endswith((".", "_.", "]_.")), "the summary is one sentence"


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_public_methods_are_documented(name):
    cls = ESTIMATORS[name]
    for method, value in inspect.getmembers(cls, inspect.isfunction):
        if method.startswith("_") or not value.__module__.startswith("skspurious"):
            continue
        parameters = [p for p in inspect.signature(value).parameters if p != "self"]
        documented = section(textwrap.dedent(inspect.getdoc(value) or ""), "Parameters")
        assert sorted(documented) == sorted(parameters), f"{name}.{method}"
