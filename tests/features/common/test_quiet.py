"""features.common.quiet: what is written past Python's sys.stderr goes nowhere, and only within the block."""

import contextlib
import os

from features.common.quiet import silent_stderr


def test_native_chatter_is_silenced_and_stderr_comes_back(capfd):
    os.write(2, b"before ")
    with contextlib.suppress(KeyError), silent_stderr():
        os.write(2, b"chatter ")
        raise KeyError
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"
