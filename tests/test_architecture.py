"""The import arrows: data flows one way, and every layer knows only those below it."""

import ast
from pathlib import Path

import pytest

import skspurious

ROOT = Path(skspurious.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# What a part may import, besides itself. The order is that in which data flow.
BELOW = ["functional", "utils"]
ENGINE = [*BELOW, "_engine", "data"]
ALLOWED = {
    "functional": [],
    "utils": [],
    "_version": [],
    "networks": [],
    "transforms": [],
    "data": BELOW,
    "_engine": [*BELOW, "data"],
    "callbacks": ["_engine"],
    "base": [*ENGINE, "metrics"],  # score is the worst-group accuracy
    "datasets": [*BELOW, "data"],
    "preprocessing": ["data"],
    "persistence": [*ENGINE, "base", "_version"],
    "embedding": [*ENGINE, "base"],
    "group_inference": [*BELOW, "data"],
    "mitigation": [*ENGINE, "base", "embedding", "group_inference", "networks"],
    "metrics": [*BELOW, "data"],
    "model_selection": [*BELOW, "data", "metrics"],
    "inspection": [*BELOW, "data", "metrics", "embedding", "group_inference", "mitigation"],
}
EXEMPT = {"__init__", "cli"}  # the two that put everything together

# Compositions of estimators; every other file is a method.
COMPOSITIONS = {"_spare", "_george"}


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


@pytest.mark.parametrize(
    "path", sorted((ROOT / "mitigation").glob("_[a-z]*.py")), ids=lambda p: p.stem
)
def test_a_method_imports_no_other_method(path):
    """Stages are composed as estimators, in the files of make_* functions."""
    targets = {target[1] for target in own_imports(path) if target[0] == "mitigation"}
    allowed = {"_stages"}
    if path.stem in COMPOSITIONS:
        assert not any(isinstance(n, ast.ClassDef) for n in ast.parse(path.read_text()).body)
    else:
        assert targets <= allowed
        parts = {target[0] for target in own_imports(path)}
        assert parts <= {"base", "functional", "_engine", "data", "utils", "group_inference"}


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
    assert not calls & {"np.random.seed", "random.seed", "torch.manual_seed", "torch.seed"}
    assert not calls & {"set_config", "sklearn.set_config", "torch.set_num_threads"}


@pytest.mark.parametrize("path", FILES, ids=label)
def test_nothing_unpickles(path):
    """Checkpoints are read with ``weights_only=True``; nothing else is loaded."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in {"pickle.load", "pickle.loads", "joblib.load"}
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
