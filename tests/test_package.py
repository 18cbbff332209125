import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import keras_deartifact

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "keras_deartifact"

# A module imports only from a lower layer (DESIGN.md, section 2). What is not listed fails.
LAYERS = {
    "bounds": -1,
    "colour": 0,
    "console": 0,
    "image": 0,
    "pipeline": 0,
    "quantiser": 0,
    "video": 0,
    "adversarial": 1,
    "codecs": 1,
    "fields": 1,
    "limit": 1,
    "losses": 1,
    "metrics": 1,
    "models": 1,
    "perceptual": 1,
    "stills": 1,
    "trainer": 1,
    "complexity": 2,
    "deep_distance": 2,
    "degradations": 2,
    "encoders": 2,
    "engines": 2,
    "files": 2,
    "gan": 2,
    "predictor_trainer": 2,
    "bench": 3,
    "compare": 3,
    "data": 3,
    "demo": 3,
    "description": 3,
    "processes": 0,
    "report": 3,
    "restore": 3,
    "study": 3,
    "archive": 4,
    "cli": 5,
}
# These need the extra [train]; everything else has to work in the base install.
TRAINING_MODULES = {"adversarial", "losses", "models", "perceptual", "complexity", "data"}
TRAINING_MODULES |= {"deep_distance", "trainer", "gan", "predictor_trainer"}
BASE_DEPENDENCIES = {"absl", "ai_edge_litert", "av", "numpy", "PIL", "tqdm", "keras_deartifact"}
PROGRAMS = ("training", "export", "serving")

MODULES = sorted(LIBRARY.rglob("*.py"))


def _name(path):
    """`metrics` for metrics/psnr.py, `image` for image.py, `__init__` for the package itself."""
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def _is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _imports(path, inside_functions):
    """The dotted names that a file imports; `from a.b import c` counts as `a.b.c`."""
    package = ["keras_deartifact", *path.relative_to(LIBRARY).parent.parts] if path.is_relative_to(LIBRARY) else []
    waiting = [ast.parse(path.read_text(encoding="utf-8"), str(path))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield from (".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if inside_functions or not (is_function or _is_type_checking(node)):
            waiting.extend(ast.iter_child_nodes(node))


def _run(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_import_is_light():
    heavy = ("tensorflow", "keras", "av", "PIL", "onnxruntime", "ai_edge_litert")
    code = "import sys, keras_deartifact as package; dir(package); package.__version__; print(*sys.modules)"
    result = _run(code)
    assert result.returncode == 0, result.stderr
    loaded = {name.split(".")[0] for name in result.stdout.split()}
    assert "keras_deartifact" in loaded
    assert not loaded & set(heavy)


def test_the_base_install_measures_and_reads_without_tensorflow():
    code = (
        "import sys, keras_deartifact, keras_deartifact.stills, keras_deartifact.image;"
        "keras_deartifact.METRICS, keras_deartifact.psnr, keras_deartifact.ssim;"
        "print(*sys.modules)"
    )
    result = _run(code)
    assert result.returncode == 0, result.stderr
    assert not {name.split(".")[0] for name in result.stdout.split()} & {"tensorflow", "keras"}


def test_public_names():
    assert keras_deartifact.__version__
    assert set(keras_deartifact._MODULES) <= set(dir(keras_deartifact))
    assert callable(keras_deartifact.psnr)
    assert keras_deartifact.METRICS["ssim"] is keras_deartifact.ssim
    with pytest.raises(AttributeError, match="module 'keras_deartifact' has no attribute 'nothing'"):
        _ = keras_deartifact.nothing


@pytest.mark.parametrize("name", keras_deartifact._MODULES)
def test_every_public_name_loads(name):
    module = keras_deartifact._MODULES[name]
    if not ((LIBRARY / f"{module}.py").exists() or (LIBRARY / module / "__init__.py").exists()):
        pytest.skip(f"keras_deartifact.{module} is not written yet")
    assert getattr(keras_deartifact, name) is getattr(importlib.import_module(f"keras_deartifact.{module}"), name)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_imports_point_down(path):
    name = _name(path)
    if name == "__init__":
        # It loads the rest by name, when asked.
        assert not [each for each in _imports(path, inside_functions=True) if each.startswith("keras_deartifact")]
        return
    assert name in LAYERS, f"expected a module with a layer in {__file__}"
    for imported in _imports(path, inside_functions=True):
        parts = imported.split(".")
        assert parts[0] not in PROGRAMS, f"{name} imports {imported}"
        if parts[0] != "keras_deartifact" or (parts[1] == name and path.parent != LIBRARY):
            continue
        if parts[1] == "__version__":
            continue
        assert parts[1] in LAYERS, f"{name} imports {imported}: expected a module of a lower layer"
        assert LAYERS[parts[1]] < LAYERS[name], f"{name} imports {imported}"


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if _name(path) not in TRAINING_MODULES],
    ids=lambda path: str(path.relative_to(LIBRARY)),
)
def test_the_base_install_is_enough(path):
    allowed = BASE_DEPENDENCIES | sys.stdlib_module_names
    for imported in _imports(path, inside_functions=False):
        parts = imported.split(".")
        assert parts[0] in allowed, f"{_name(path)} imports {imported} at module level"
        if parts[0] == "keras_deartifact":
            assert parts[1] not in TRAINING_MODULES, f"{_name(path)} imports {imported} at module level"


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_do_not_import_each_other(program):
    others = set(PROGRAMS) - {program}
    for path in sorted((ROOT / program).rglob("*.py")):
        for imported in _imports(path, inside_functions=True):
            assert imported.split(".")[0] not in others, f"{path.relative_to(ROOT)} imports {imported}"


def test_the_walk_sees_what_it_should(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "import a\nfrom b.c import d\nif x:\n    import e\nif TYPE_CHECKING:\n    import f\n"
        "def g():\n    import h\nclass I:\n    import j\n    def k(self):\n        from l import m\n"
    )
    assert set(_imports(path, inside_functions=False)) == {"a", "b.c.d", "e", "j"}
    assert set(_imports(path, inside_functions=True)) == {"a", "b.c.d", "e", "f", "h", "j", "l.m"}
