"""What goes to standard error: log lines, warnings and the one line of an error."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings

# What these warn of comes out as the tool's own error if it matters in the end.
_COVERED_BY_THE_ERROR = ("seamless_remote.clients.endpoint", "seamless_remote.clients.health")


class _Formatter(logging.Formatter):
    """Short lines, with the level where it is a warning or worse."""

    def __init__(self, prog: str, debug: bool) -> None:
        super().__init__()
        self._prog = prog
        self._debug = debug

    def format(self, record: logging.LogRecord) -> str:
        origin = f" {record.name}:" if self._debug else ""
        level = f" {record.levelname.lower()}:" if record.levelno >= logging.WARNING else ""
        line = f"{self._prog}:{level}{origin} {one_line(record.getMessage())}"
        if self._debug and record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def configure_logging(prog: str, *, verbose: bool, debug: bool) -> None:
    """Log warnings to standard error, more with `verbose`, everything with `debug`.

    Python's warnings (seamless-config has some that mean nothing to these tools) are shown with
    either, or where the user asked for them (`python -W`).
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(prog, debug))
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if verbose or debug:
        logging.captureWarnings(True)
        return
    for name in _COVERED_BY_THE_ERROR:
        logging.getLogger(name).setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def report_error(prog: str, error: Exception, *, debug: bool) -> None:
    """Print the one line that says what went wrong; with `debug` the traceback before it."""
    if sys.stderr is None:
        return
    text = f"{prog}: error: {one_line(str(error))}\n"
    if debug:
        text = "".join(traceback.format_exception(error)) + text
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        # Nobody reads it any more, and there is no other place to say so.
        return


def one_line(text: str) -> str:
    """`text` on one line, with nothing in it that a terminal would obey."""
    line = " ".join(text.split())
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in line)
