"""The three rooms: imports point one way, and nothing loads TensorFlow before it is needed."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

ROOMS = ("extract", "features", "classify")
HEAVY = ("tensorflow", "keras", "torch", "jax")
#: The modules of features/ that name what the room may not load, inside their functions only, and what they name.
LAZY = {
    ROOT / "features" / "common" / "keras_import.py": set(HEAVY),
    ROOT / "features" / "dataset" / "frames.py": {"pydicom", "nibabel"},
}
#: The order inside classify: a package imports from itself and from those before it.
ORDER = (
    {"inputs"},
    {"models"},
    {"bank"},
    {"crossfit"},
    {"ensembles"},
    {"scores"},
    {"settings"},
    {"options"},
    {"experiment", "search"},
    {"rundir"},
    {"explain", "validation"},
    {"report", "predict", "run", "learn", "export"},
    {"compare", "notebook", "__main__"},
)
#: Tables of names, which help texts read: they load none of these.
TABLES = (
    "classify.models.baselines",
    "classify.models.heads",
    "classify.ensembles.ensembles",
    "classify.scores.metrics",
)
#: What only the report draws with.
OF_THE_REPORT = ("matplotlib", "jinja2")
#: What a room may never import, not even inside a function (docs/contributing.md, "The map").
FORBIDDEN = {
    "extract": {"classify"},
    "features": {"extract", "classify", *HEAVY, "cv2", "pydicom", "nibabel"},
    "classify": {"extract", "cv2", "pydicom", "nibabel"},
}

# Prints, as its last line, which packages are loaded when the interpreter ends.
LOADED = """
import atexit, importlib, json, runpy, sys
def show(): print("\\n" + json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
atexit.register(show)
"""
# Imports modules; where the arguments have a "-", it prints in a line which packages are loaded so far.
IMPORT = LOADED + "for name in sys.argv[1:]: show() if name == '-' else importlib.import_module(name)"
RUN = LOADED + 'name = sys.argv.pop(1); runpy.run_module(name, run_name="__main__", alter_sys=True)'
# Runs each of its arguments as a command, and prints a null character before what it prints.
RUN_EACH = (
    LOADED
    + """
for name, *words in map(str.split, sys.argv[1:]):
    sys.argv = ["-c", *words]
    print(end="\\0", flush=True)
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        assert not ended.code, (name, words, ended.code)
"""
)
#: Commands that load nothing heavy, and what each says.
HELP = {
    "extract --help": "Usage: python -m extract",
    "extract run --help": "--backbones",
    "extract list": "xception",
    "extract heat --help": "RUN",
    "extract finetune --help": "--unfreeze",
    "extract check --help": "--backbones",
    "features --help": "Usage: python -m features",
    "features inspect --help": "CACHE",
    "features verify --help": "CACHE",
    "features audit --help": "--data",
    "features describe --help": "DATA",
    "features map --help": "--most",
    "features similar --help": "--id",
    "extract thumbnails --help": "DATA",
    "classify --help": "Usage: python -m classify",
    "classify run --help": "--backbones",
    "classify predict --help": "--split",
    "classify report --help": "RUN/report.html",
    "classify compare --help": "RUN1 RUN2",
    "classify search --help": "STUDY",
    "scripts.pipeline --help": "predict",
    "scripts.pipeline scripts/extract.sh --help": "--backbones",
    "scripts.pipeline scripts/classify.sh --help": "--no-pictures",
    "scripts.pipeline scripts/predict.sh --help": "IMAGES",
    "classify gradients --help": "--model",
    "classify export --help": "OUT",
}


def modules(room: str) -> list[str]:
    """List the modules of a room by their dotted names."""
    paths = sorted((ROOT / room).rglob("*.py"))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]


def imports_of(path: Path, whole: bool = True) -> set[str]:
    """Find the packages that a module imports: anywhere in its text, or as it is loaded, outside of its functions.

    Relative imports stay within the room.
    """
    found = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    for node in nodes:
        if whole or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            nodes.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def packages_loaded(program: str, *arguments: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run a program in a fresh interpreter; return how it ended, and the packages that it had loaded."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done, set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("room", ROOMS)
def test_no_module_names_a_room_that_it_must_not_know(room):
    paths = sorted((ROOT / room).rglob("*.py"))
    assert len(paths) > 5
    named = {path: imports_of(path, whole=path not in LAZY) & FORBIDDEN[room] for path in paths}
    assert {str(path.relative_to(ROOT)): names for path, names in named.items() if names} == {}


@pytest.mark.parametrize("room", ROOMS)
def test_only_a_command_of_a_room_may_call_scripts_which_know_all_rooms_and_only_when_it_runs(room):
    """A command that joins rooms does so by `scripts`, within the function that runs: nothing else reaches there."""
    for path in sorted((ROOT / room).rglob("*.py")):
        whole = path != ROOT / room / "__main__.py"
        assert "scripts" not in imports_of(path, whole), path


def test_two_modules_of_features_name_heavy_packages_and_only_in_functions():
    assert {path: imports_of(path) & FORBIDDEN["features"] for path in LAZY} == LAZY


def test_the_finder_of_imports_sees_lazy_and_nested_ones(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        "import os.path\nfrom . import near\n"
        "def lazy():\n    from keras.applications import vgg16\n    if True:\n        import jax as j, torch.nn\n"
    )
    assert imports_of(module) == {"os", "keras", "jax", "torch"}
    assert imports_of(module, whole=False) == {"os"}


@pytest.mark.parametrize("room", ROOMS)
def test_importing_every_module_of_a_room_loads_no_room_that_it_must_not_know(room):
    """And of classify only the report and the comparison load what they draw with: their modules are imported last."""
    names = [name for name in modules(room) if not name.endswith("__main__")]
    report = [name for name in names if name.startswith(("classify.report", "classify.compare"))]
    done, loaded = packages_loaded(IMPORT, *(name for name in names if name not in report), "-", *report)
    assert done.returncode == 0, done.stderr
    assert room in loaded
    assert loaded & FORBIDDEN[room] == set()
    if room == "classify":
        before, _ = (line for line in done.stdout.splitlines() if line)
        assert set(json.loads(before)) & set(OF_THE_REPORT) == set()
        assert "matplotlib" in loaded  # or the finder saw nothing


@pytest.mark.parametrize("module", [*ROOMS, "scripts.pipeline"])
def test_asking_for_help_loads_no_tensorflow(module):
    """Nor does any other of these commands, which one interpreter runs one after another."""
    asked = {command: says for command, says in HELP.items() if command.split()[0] == module}
    done, loaded = packages_loaded(RUN_EACH, *asked)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    _, *printed = done.stdout.split("\0")
    for (command, says), text in zip(asked.items(), printed, strict=True):
        assert says in text, command
    assert loaded & {*HEAVY, *OF_THE_REPORT, "numpy", "pandas", "pydicom", "nibabel"} == set()
    assert "typer" in loaded  # the wrapper saw what the commands loaded


def test_a_package_of_classify_imports_only_from_itself_and_from_those_before_it():
    place = {name: index for index, names in enumerate(ORDER) for name in names}
    wrong = []
    for path in sorted((ROOT / "classify").rglob("*.py")):
        own = path.relative_to(ROOT / "classify").with_suffix("").parts[0]
        if own == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("classify."):
                other = str(node.module).split(".")[1]
                if place[other] > place[own] or (place[other] == place[own] and other != own and own != "__main__"):
                    wrong.append(f"{path.relative_to(ROOT)} imports {node.module}")
    assert wrong == []


def test_the_tables_of_names_load_nothing_heavy():
    done, loaded = packages_loaded(IMPORT, *TABLES)
    assert done.returncode == 0, done.stderr
    assert loaded & {*HEAVY, "numpy", "pandas", "sklearn", "scipy", "pydantic"} == set()


def public_names(path: Path) -> set[str]:
    """The functions, classes and constants that a module defines, but for loggers."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    return {name for name in names if not name.startswith("_") and name != "logger"}


def test_no_public_name_is_defined_twice():
    """A command of `__main__` may have the name of the function that it calls."""
    places: dict[str, list[str]] = {}
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py") if path.name != "__main__.py"):
        for name in public_names(path):
            places.setdefault(name, []).append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("room", ROOMS)
def test_no_folder_has_more_than_twelve_files(room):
    sizes = {path.parent: 0 for path in (ROOT / room).rglob("*.py")}
    for path in (ROOT / room).rglob("*.py"):
        sizes[path.parent] += 1
    assert {str(folder.relative_to(ROOT)): size for folder, size in sizes.items() if size > 12} == {}
