"""Let Ctrl-C end a command without a word before it has begun, while its modules are being imported."""

import signal


def end_silently() -> None:
    """Give Ctrl-C back to the system, as in other programs: the traceback of an import tells nobody anything.

    Where whatever started the process has made it deaf to Ctrl-C, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_again() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, for a command that tidies up."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
