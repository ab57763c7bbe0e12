"""Paste printed commands into a shell whose programs only say which words reached them."""

import os
import subprocess
from pathlib import Path

#: Names of files and columns that a shell or a terminal would act on.
NASTY_NAMES = [
    "my scans",
    "-x",
    "--cache",
    "it's",
    'a"b',
    "a\nb",
    "tab\there",
    "\x1b[31mred",
    "$(touch owned)",
    "`id`",
    "a;b & c|d",
    "~",
    "*",
    "\\x41",
    "Köpfe",
    "\u202egnp",
    "\udcff",
    "a\\'\n",
    "{a,b}",
    "!1",
    "#",
]

#: Prints its name and its arguments, each followed by a NUL, and two NULs at the end.
_STUB = '#!/bin/bash\nprintf "%s\\0" "$0" "$@"; printf "\\0"\n'


def paste(folder: Path, command: str) -> list[list[str]]:
    """Run a command line in a folder; gives the words of each program of Headbank that it called."""
    for name in (".venv/bin/python", "scripts/extract.sh"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(_STUB)
        (folder / name).chmod(0o755)
    done = subprocess.run(["bash", "-c", command], cwd=folder, check=True, stdout=subprocess.PIPE)
    assert not (folder / "owned").exists()
    return [os.fsdecode(call).split("\0") for call in done.stdout.split(b"\0\0")[:-1]]
