"""Output on standard error: log lines, Python warnings, and the one-line error message."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings

# If what these modules warn about matters, the tool fails, and its error message includes it.
_COVERED_BY_THE_ERROR = ("seamless_remote.clients.endpoint", "seamless_remote.clients.health")


class _Formatter(logging.Formatter):
    """Formats a record as one line, with its level from WARNING up."""

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
    """Log to standard error from level WARNING up, INFO with `verbose`, DEBUG with `debug`.

    Python warnings are hidden unless `verbose`, `debug` or `python -W` is given: seamless-config
    issues some that do not apply to the tools.
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
    """Print the error in one line; with `debug`, print its traceback first."""
    if sys.stderr is None:
        return
    text = f"{prog}: error: {one_line(str(error))}\n"
    if debug:
        text = "".join(traceback.format_exception(error)) + text
    sys.stderr.write(text)


def one_line(text: str) -> str:
    """`text` on one line, with control characters escaped: a service may have sent them."""
    line = " ".join(text.split())
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in line)
