"""Where a notebook runs, what has to be installed there, and where its images are. Needs no package."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
#: Packages of requirements.txt that no notebook needs.
_OF_TESTS = ("pytest", "pytest-xdist", "hypothesis", "ruff", "mypy", "playwright", "nbclient", "ipykernel")
#: How many folders deep a data set may lie in one that is looked through.
_DEPTH = 4


@dataclass(frozen=True)
class Environment:
    """Where a notebook runs.

    Attributes:
        name: `Colab`, `Kaggle` or `this machine`.
        inputs: folders that are looked through for images.
        work: the folder to write to.
        gpu: what the system calls its first GPU; "" without one.
    """

    name: str
    inputs: tuple[Path, ...]
    work: Path
    gpu: str

    def __str__(self) -> str:
        inputs = ", ".join(map(str, self.inputs))
        return f"{self.name}, {self.gpu or 'no GPU'}; images are looked for in {inputs}; written to {self.work}"


def find_environment(root: Path = Path("/")) -> Environment:
    """Find where this is: Kaggle has `kaggle/input`, Colab `content`, below the root of the file system."""
    kaggle, colab, gpu = root / "kaggle", root / "content", _find_gpu()
    if (kaggle / "input").is_dir():
        return Environment("Kaggle", (kaggle / "input",), kaggle / "working", gpu)
    if colab.is_dir():
        return Environment("Colab", (colab,), colab / "headbank", gpu)
    return Environment("this machine", (Path.cwd(),), Path.cwd() / "headbank", gpu)


def _find_gpu() -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    names = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    return names.stdout.partition("\n")[0].strip()


def install_missing() -> list[str]:
    """Install the packages of requirements.txt that are not there, in its versions; what is there stays as it is.

    Returns:
        What was installed, such as `skops==0.16.0`.

    Raises:
        RuntimeError: pip failed; the message ends with what it said.
    """
    lines = (_ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if re.match(r"[a-z]", line)]
    missing = [pin for pin in pins if pin.partition("==")[0] not in _OF_TESTS and not _is_installed(pin)]
    if missing:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *missing]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"pip could not install {', '.join(missing)}: {done.stderr.strip()[-1000:]}")
    return missing


def _is_installed(pin: str) -> bool:
    try:
        importlib.metadata.version(pin.partition("==")[0])
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def find_data(environment: Environment, data: str = "") -> Path:
    """Find the data set: the one folder with `train.csv` and `train`; archives are unpacked where there is none.

    Args:
        environment: where to look.
        data: a folder or an archive, to look at nothing else.

    Raises:
        ValueError: there is none, or there are several.
    """
    places = [Path(data)] if data else [*environment.inputs]
    found = list(_find_sets(places))
    if not found:
        found = list(_find_sets([_unpack(archive, environment.work) for archive in _find_archives(places)]))
    if len(found) != 1:
        names = ", ".join(map(str, found)) or "none"
        raise ValueError(
            f"{', '.join(map(str, places))} should hold one folder with train.csv and train/, or an archive of one; "
            f"found {names}. Name it in DATA."
        )
    return found[0]


def _find_sets(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        for folder in _folders(place):
            if (folder / "train.csv").is_file() and (folder / "train").is_dir():
                yield folder


def _find_archives(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        files = (
            [place] if place.is_file() else [path for folder in _folders(place) for path in sorted(folder.iterdir())]
        )
        yield from (path for path in files if path.is_file() and path.name.lower().endswith(_ARCHIVES))


def _folders(place: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """A folder and those in it, but for those of images: what holds train.csv is not looked into."""
    if place.is_dir():
        yield place
        if depth and not (place / "train.csv").is_file():
            for path in sorted(place.iterdir()):
                if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
                    yield from _folders(path, depth - 1)


def _unpack(archive: Path, work: Path) -> Path:
    """Unpack an archive, once, into a folder of its name; no member is written outside of it."""
    folder = work / "unpacked" / archive.name
    if not folder.is_dir():
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if archive.suffix.lower() == ".zip":
            with zipfile.ZipFile(archive) as file:
                file.extractall(partial)
        else:
            _unpack_tar(archive, partial)
        partial.rename(folder)
    return folder


def _unpack_tar(archive: Path, folder: Path) -> None:
    """Unpack the files and folders of a tar archive; Python 3.11.2, that of Debian 12, knows no `filter` of members."""
    with tarfile.open(archive) as tar:
        for member in tar:
            target = folder / member.name
            if not target.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{archive} holds {member.name}, which lies outside of it. Pack it again without.")
            (target if member.isdir() else target.parent).mkdir(parents=True, exist_ok=True)
            if member.isreg() and (content := tar.extractfile(member)):
                with content, target.open("wb") as file:
                    shutil.copyfileobj(content, file)
