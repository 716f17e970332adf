"""Docstrings: examples run, attributes exist, parameters are complete and agree with the code."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap

import pytest
from registry import CLASSIFIERS, ENTRIES, VIEWS, by_name, ignored_warnings

import skspurious
from skspurious import TorchFeatureExtractor
from skspurious._shared import TrainingParameters

ESTIMATORS = by_name(ENTRIES + VIEWS)
pytestmark = ignored_warnings()


def all_modules():
    yield skspurious
    for info in pkgutil.walk_packages(skspurious.__path__, "skspurious."):
        yield importlib.import_module(info.name)


def public_objects():
    """Every documented function and class of a public ``__all__``, once; of ``functional`` all."""
    found = {}
    for module in all_modules():
        is_private = any(part.startswith("_") for part in module.__name__.split("."))
        if is_private and not module.__name__.startswith("skspurious.functional."):
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
    "sklearn.utils._param_validation.Interval": "scikit-learn's",
    "sklearn.utils._param_validation.StrOptions": "scikit-learn's",
    "skspurious._engine._callbacks.ProgressBar": "what verbose=1 shows",
    "skspurious.cli.main": "runs the demo",
    "skspurious.data._samples.DatasetSamples": "what as_samples makes; its example stands there",
    "skspurious.data._samples.ImagePaths": "needs files",
    "skspurious.data._samples.TensorSamples": "what as_samples makes; its example stands there",
    "skspurious.functional._clustering.seed_centers": "a step of kmeans_centers",
    "skspurious.functional._difficulty.DifficultySplit": "what split_difficulty returns",
    "skspurious.functional._recovery.Recovery": "what recovery_tests returns",
    "skspurious.functional._silhouette.SilhouetteScore": "what score_partitions returns",
    "skspurious.inspection._history.HistoryDisplay": "needs a figure and a fitted network",
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


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_parameter_is_described(name):
    entries = section(inspect.getdoc(PUBLIC[name]) or "", "Parameters")
    assert [parameter for parameter, (_, text) in entries.items() if not text] == []


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_functions_that_raise_say_what(name):
    value = PUBLIC[name]
    functions = [value]
    if inspect.isclass(value):
        functions = [f for k, f in vars(value).items() if not k.startswith("_")]
    for function in functions:
        if not inspect.isfunction(function):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
        if any(isinstance(node, ast.Raise) for node in ast.walk(tree)):
            assert "Raises\n------" in inspect.getdoc(function), function.__qualname__


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
            # of a dataclass, whose default dict is made anew for each
            default = {} if repr(parameter.default) == "<factory>" else parameter.default
            assert documented_default(kind) == default, parameter.name


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_documented_attribute_exists_after_fit(name):
    fitted = ESTIMATORS[name].fitted()
    documented = section(ESTIMATORS[name].cls.__doc__, "Attributes")
    assert bool(documented) != ESTIMATORS[name].is_stateless
    for attribute in documented:
        if attribute == "feature_names_in_":  # only of a DataFrame
            continue
        assert hasattr(fitted, attribute), f"{attribute} does not exist after fit"


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_learned_attribute_is_documented(name):
    fitted = ESTIMATORS[name].fitted()
    learned = {k for k in vars(fitted) if k.endswith("_") and not k.startswith("_")}
    assert learned <= set(section(ESTIMATORS[name].cls.__doc__, "Attributes"))


@pytest.mark.parametrize("entry", CLASSIFIERS, ids=lambda entry: entry.name)
def test_shared_parameters_have_one_wording(entry):
    """But for those that have another default in a class, which its own words explain."""
    shared = section(TrainingParameters.__doc__, "Parameters")
    own = section(entry.cls.__doc__, "Parameters")
    for name in set(shared) - {"module"} - entry.own_wording:
        assert own[name] == shared[name]


def test_parameters_of_the_extractor_mean_what_they_mean_in_classifiers():
    shared = section(TrainingParameters.__doc__, "Parameters")
    own = section(TorchFeatureExtractor.__doc__, "Parameters")
    for name in ("device", "precision", "num_workers"):
        assert own[name] == shared[name]


@pytest.mark.parametrize("attribute", ["classes_", "module_", "history_", "best_epoch_"])
def test_shared_attributes_have_one_wording(attribute):
    entries = [section(entry.cls.__doc__, "Attributes")[attribute] for entry in CLASSIFIERS]
    entries = [(kind, text.replace(" group weights,", "")) for kind, text in entries]
    assert len(set(entries)) == 1


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_estimators_have_the_sections_of_the_style(name):
    doc = inspect.cleandoc(ESTIMATORS[name].cls.__doc__)
    titles = re.findall(r"^([A-Z][A-Za-z ]+)\n-{3,}$", doc, re.M)
    expected = ["Parameters", "Attributes", "See Also", "Notes", "References", "Examples"]
    assert [t for t in titles if t in expected] == [t for t in expected if t in titles]
    needed = {"Parameters", "Attributes", "See Also", "Notes", "Examples"}
    if ESTIMATORS[name].is_stateless:
        needed -= {"Attributes"}
    if not inspect.signature(ESTIMATORS[name].cls).parameters:
        needed -= {"Parameters"}
    assert needed <= set(titles)
    assert ".. versionadded::" in doc
    assert doc.split("\n", 1)[0].endswith((".", "_.", "]_.")), "the summary is one sentence"


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_public_methods_are_documented(name):
    cls = ESTIMATORS[name].cls
    for method, value in inspect.getmembers(cls, inspect.isfunction):
        if method.startswith("_") or not value.__module__.startswith("skspurious"):
            continue
        parameters = [p for p in inspect.signature(value).parameters if p != "self"]
        documented = section(textwrap.dedent(inspect.getdoc(value) or ""), "Parameters")
        documented = [parameter.lstrip("*") for parameter in documented]
        assert sorted(documented) == sorted(parameters), f"{name}.{method}"
