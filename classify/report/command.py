"""What `python -m classify report` does: read the run's files, make the page, put it in its place."""

import shutil
import tempfile
from pathlib import Path

from jinja2 import TemplateError

from classify.report.page import make_page
from classify.report.run_files import RunFiles
from classify.rundir.folder import FIGURES, REPORT, hold_run
from features.common.errors import InputError
from features.common.files import replacing
from features.common.text import make_console


def write_report(folder: Path) -> None:
    """Write the report of a run: `RUN/report.html`, and each of its figures in `RUN/figures/`.

    Args:
        folder: of a finished run. Its earlier report is replaced when the new one is whole.

    Raises:
        InputError: the folder holds no finished run, a file of it is damaged, another process is writing to it, or it
            cannot be written to.
    """
    RunFiles.read(folder)  # before the lock, which would make a folder around a run that is not there
    with hold_run(folder):
        run = RunFiles.read(folder)
        try:
            with tempfile.TemporaryDirectory(prefix=".figures", dir=folder) as temporary:
                figures = Path(temporary) / FIGURES
                figures.mkdir()
                page = make_page(run, figures)
                with replacing(folder / REPORT) as path:
                    path.write_text(page, encoding="utf-8")
                _replace_folder(figures, folder / FIGURES)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{folder} cannot be written ({reason}). Free the disk, or change its rights.") from None
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, TemplateError) as error:
            raise InputError(
                f"the files of {folder} do not fit together ({error!r}): one is damaged, or was changed by hand. Make "
                "the run again."
            ) from None
    size = (folder / REPORT).stat().st_size / 1e6
    make_console().print(f"report: {folder / REPORT} ({size:.1f} MB)")


def _replace_folder(new: Path, old: Path) -> None:
    """Let a folder take the place of another, or of whatever is there."""
    if old.is_dir() and not old.is_symlink():
        shutil.rmtree(old)
    else:
        old.unlink(missing_ok=True)
    new.replace(old)
