"""The import arrows: data flows one way, and every layer knows only those below it."""

import ast
import graphlib
from pathlib import Path

import pytest

import skspurious

ROOT = Path(skspurious.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# What a part may import, besides itself. The order is that in which data flow.
BELOW = ["functional", "utils"]
ENGINE = [*BELOW, "_engine", "data"]
TRAINING = [*ENGINE, "_shared", "_preparation", "_training", "_prediction"]
ALLOWED = {
    "functional": [],
    "utils": [],
    "_version": [],
    "exceptions": [],
    "networks": [],
    "transforms": [],
    "data": BELOW,
    "_engine": [*BELOW, "data", "exceptions"],
    "callbacks": ["_engine"],
    "_shared": ENGINE,
    "_preparation": ENGINE,
    "_training": [*ENGINE, "_preparation"],
    "_prediction": [*ENGINE, "_training"],
    "base": [*TRAINING, "metrics"],  # score is the worst-group accuracy
    "datasets": [*BELOW, "data"],
    "views": [*BELOW, "data"],
    "pipeline": [*BELOW, "data"],
    "persistence": [*ENGINE, "base", "exceptions", "_version"],
    "embedding": [*TRAINING, "base"],
    "group_inference": [*BELOW, "data", "views"],
    "mitigation": [*TRAINING, "base", "embedding", "group_inference", "networks", "views"],
    "metrics": [*BELOW, "data", "group_inference"],  # the scorer finds groups to score by
    "model_selection": [*BELOW, "data", "metrics"],
    "inspection": [
        *BELOW,
        "data",
        "metrics",
        "embedding",
        "group_inference",
        "mitigation",
        "views",
    ],
    "_method_checks": ["base", "data", "datasets"],
    "extend": [*TRAINING, "base", "callbacks", "group_inference", "_method_checks"],
}
EXEMPT = {"__init__", "cli"}  # the two that put everything together

# Compositions of estimators; every other file is a method, or a part of one.
COMPOSITIONS = {"_auto", "_auto_ways", "_spare", "_george", "_xrm", "_stages"}
# What other methods may import: the first stage of most, and the pruner of what is pruned.
SHARED_METHODS = {"_erm", "_stages"}
USED_BY = {"_pruned": {"_pruner"}}


def part_of(path):
    """Part of the package that a file belongs to: a folder, or a file of the top level."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(path):
    """Every module that a file imports, wherever in the file, and the names from it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from ((node.module, alias.name) for alias in node.names)


def own_imports(path):
    """Imports from this package, as the parts of ``skspurious.part.file``."""
    for module, name in imports(path):
        if module.split(".")[0] == "skspurious":
            parts = module.split(".")[1:]
            yield parts if parts else [name]


def label(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=label)
def test_imports_follow_the_arrows(path):
    part = part_of(path)
    if part in EXEMPT:
        return
    for target in own_imports(path):
        assert target[0] in [part, *ALLOWED[part]], f"{part} imports {'.'.join(target)}"


def test_every_folder_is_a_package():
    """A folder without ``__init__.py`` would be missing from the wheel."""
    folders = {path.parent for path in FILES}
    assert [label(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_every_part_has_its_arrows():
    assert {part_of(path) for path in FILES} - EXEMPT <= set(ALLOWED)


def file_graph():
    """The files that each file imports, for types and inside functions too."""
    files = {".".join(["skspurious", *path.relative_to(ROOT).with_suffix("").parts]): path
             for path in FILES}  # fmt: skip
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    return {
        label(path): {
            label(target)
            for module, name in imports(path)
            for target in [files.get(f"{module}.{name}", files.get(module))]
            if target is not None
        }
        for path in FILES
    }


def test_no_circle_of_imports():
    list(graphlib.TopologicalSorter(file_graph()).static_order())  # raises CycleError


def test_a_circle_for_types_alone_would_be_seen(tmp_path, monkeypatch):
    (tmp_path / "one.py").write_text("from skspurious.two import B")
    lazy = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from skspurious import one"
    (tmp_path / "two.py").write_text(lazy)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "FILES", sorted(tmp_path.glob("*.py")))
    with pytest.raises(graphlib.CycleError):
        test_no_circle_of_imports()


METHOD_FILES = sorted((ROOT / "mitigation").glob("_[a-z]*.py"))


@pytest.mark.parametrize("path", METHOD_FILES, ids=lambda p: p.stem)
def test_a_method_imports_no_other_method(path):
    """But for files of its own prefix, plain training, and what ``USED_BY`` names."""
    targets = {target[1] for target in own_imports(path) if target[0] == "mitigation"}
    if path.stem in COMPOSITIONS:
        return
    own = "_" + path.stem.split("_")[1]
    others = {name for name in targets if name != own and not name.startswith(f"{own}_")}
    assert others <= SHARED_METHODS | USED_BY.get(path.stem, set())
    parts = {target[0] for target in own_imports(path)}
    assert parts <= {*TRAINING, "base", "group_inference", "mitigation"}


@pytest.mark.parametrize("part", ["functional", "utils"])
def test_the_lowest_parts_import_nothing_of_the_package(part):
    for path in sorted((ROOT / part).glob("*.py")):
        assert {target[0] for target in own_imports(path)} <= {part}


def test_inspection_never_reaches_into_the_engine():
    for path in sorted((ROOT / "inspection").glob("*.py")):
        assert all(target[0] != "_engine" for target in own_imports(path)), path.name


@pytest.mark.parametrize("path", FILES, ids=label)
def test_private_scikit_learn_names_are_imported_in_one_file(path):
    if path.name == "_sklearn_compat.py":
        return
    for module, name in imports(path):
        parts = [*module.split("."), *([name] if name else [])]
        if parts[0] == "sklearn":
            assert not any(part.startswith("_") for part in parts), ".".join(parts)


@pytest.mark.parametrize("path", FILES, ids=label)
def test_no_file_prints_or_seeds_a_global_generator(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    assert "print" not in calls or path.name == "cli.py"
    seeds = calls & {"np.random.seed", "random.seed", "torch.manual_seed", "torch.seed"}
    # There within ``restored_generators`` alone, for code of the user's.
    assert not seeds or label(path) == "utils/_random.py"
    assert not calls & {"set_config", "sklearn.set_config", "torch.set_num_threads"}


def test_warnings_find_the_line_of_the_user():
    """By ``utils/_warnings.warn``: a counted stack level is wrong inside a Pipeline or a search."""
    callers = {
        label(path)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn"
    }
    assert callers == set()


@pytest.mark.parametrize("path", FILES, ids=label)
def test_nothing_unpickles(path):
    """Checkpoints are read with ``weights_only=True``; nothing else is loaded."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            is_round_trip = ast.unparse(node).startswith("pickle.loads(pickle.dumps(")
            assert is_round_trip or name not in {"pickle.load", "pickle.loads", "joblib.load"}
            if name == "torch.load":
                options = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert options.get("weights_only") == "True"
            if name == "np.load":
                assert all(k.arg != "allow_pickle" for k in node.keywords)


@pytest.mark.parametrize("path", FILES, ids=label)
def test_every_file_starts_with_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.name != "_version.py":
        assert ast.get_docstring(tree), "a line that says what is in the file"


# --------------------------------------------------------------------------------------
# The size of things: a file is read in one sitting, a function on one screen, a thought once.

LONGEST_FILE, LONGEST_BASE, LONGEST_FUNCTION, LONGEST_REPETITION = 450, 400, 60, 7
DATA = {"_parameter_constraints", "_presets", "__all__"}  # tables, that look like one another


@pytest.mark.parametrize("path", FILES, ids=label)
def test_files_are_short(path):
    limit = LONGEST_BASE if label(path) == "base.py" else LONGEST_FILE
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


def code_lines(tree, source):
    """Numbers of the lines with code: no blank lines, comments and docstrings."""
    lines = {
        i
        for i, line in enumerate(source.splitlines(), 1)
        if line.strip() and not line.strip().startswith("#")
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return lines


def long_functions(source):
    """Functions over the limit; the parameters of a constructor and of ``fit`` do not count."""
    tree = ast.parse(source)
    lines = code_lines(tree, source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            parameters = node.name in ("__init__", "fit")
            start = node.body[0].lineno if parameters else node.lineno
            n_lines = len(lines & set(range(start, node.end_lineno + 1)))
            if n_lines > LONGEST_FUNCTION:
                yield node.name, n_lines


@pytest.mark.parametrize("path", FILES, ids=label)
def test_functions_are_short(path):
    assert list(long_functions(path.read_text(encoding="utf-8"))) == []


def repeatable_lines(source):
    """Number and text of the lines that should stand once.

    Imports, signatures, arguments handed on under their own names and tables of constraints are
    left out: they have to be alike.
    """
    tree = ast.parse(source)
    lines = code_lines(tree, source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            lines -= set(range(node.lineno, node.end_lineno + 1))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines -= set(range(node.lineno, node.body[0].lineno))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(t, ast.Name) and t.id in DATA for t in targets):
                lines -= set(range(node.lineno, node.end_lineno + 1))
    text = source.splitlines()
    for i in sorted(lines):
        line = " ".join(text[i - 1].partition("  #")[0].split())
        name, _, value = line.removesuffix(",").partition("=")
        if name != value:
            yield i, line


def repetitions(sources):
    """Where eight lines of code stand a second time."""
    found = {}
    for name, source in sources.items():
        lines = list(repeatable_lines(source))
        for start in range(len(lines) - LONGEST_REPETITION):
            block = lines[start : start + LONGEST_REPETITION + 1]
            place = f"{name}:{block[0][0]}"
            first = found.setdefault(tuple(line for _, line in block), place)
            if first != place:
                yield first, place


def test_nothing_stands_twice():
    sources = {label(path): path.read_text(encoding="utf-8") for path in FILES}
    assert list(repetitions(sources)) == []


def test_the_limits_see_what_they_are_for():
    eight = "".join(f"    x{i} = {i} * y\n" for i in range(8))
    sources = {"a": f"def f(y):\n{eight}", "b": f"def g(z):\n    y = z\n\n{eight}"}
    assert list(repetitions(sources)) == [("a:2", "b:4")]
    assert list(repetitions({"a": sources["a"], "b": sources["b"].replace("7 *", "9 *")})) == []
    long = "def f(y):\n    'Text.'\n\n    # why\n" + "    y += 1\n" * LONGEST_FUNCTION
    assert list(long_functions(long)) == [("f", LONGEST_FUNCTION + 1)]
    assert list(long_functions(long.replace("def f", "def fit"))) == []
