"""The structured log: one event per line, bound ids, secrets masked.

Everything that a process says passes here: its own events, the standard library's loggers (Celery's, uvicorn's, those
of SDKs), warnings, and what ends a thread or the process. The last thing before a line is rendered is `masking.of`.
"""

import contextlib
import json
import logging
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, TextIO, cast

import orjson
import structlog

from headwater import masking
from headwater.settings import LogSettings

_LONGEST: Final = 64 * 1024  # of one line; a traceback through three SDKs has a few thousand characters

# What the processors put into every line.
_OURS: Final = frozenset({"timestamp", "level", "service"})


class _Sink:
    """Where lines are written, which may change. Who says something never hears that it could not be written."""

    def __init__(self) -> None:
        self.stream: TextIO = sys.stdout

    def write(self, text: str) -> None:
        """One line with its end, cut where it is too long."""
        try:
            self.stream.write(text if len(text) <= _LONGEST else text[:_LONGEST] + "\n")
        except (OSError, ValueError):
            if sys.__stderr__ is not None:
                sys.__stderr__.write("A line could not be logged.\n")

    def flush(self) -> None:
        """What was written is out."""
        with contextlib.suppress(OSError, ValueError):
            self.stream.flush()


_SINK: Final = _Sink()


class _Handler(logging.StreamHandler[_Sink]):
    """For loggers of the standard library. What they cannot say is not explained: it would be printed as it is."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        _SINK.write(f"A line of {record.name!r} could not be logged.\n")


def _mask(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    # Before it is rendered: a secret of digits would be masked in a number of the JSON.
    return {key: value if key in _OURS else masking.of(_text(value)) for key, value in event.items()}


def _text(value: Any) -> Any:
    """What JSON and the console show of other types is their `repr`, which may hold anything."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): _text(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_text(item) for item in value]
    return str(value)


def _json(_logger: Any, _method: str, event: structlog.typing.EventDict) -> str:
    try:
        return orjson.dumps(event).decode()
    except orjson.JSONEncodeError:
        return json.dumps(event)  # half a surrogate pair, a number beyond 64 bits


def _whatever_happens(processors: Sequence[structlog.typing.Processor]) -> structlog.typing.Processor:
    """`processors` as one; of a value that cannot be shown, who logs it never hears."""

    def render(logger: Any, method: str, event: Any) -> Any:
        try:
            for process in processors:
                event = process(logger, method, event)
        except Exception as error:
            return f"A line could not be logged: {type(error).__name__}"
        return event

    return render


def configure(service: str) -> None:
    """Set up logging for a process. Standard-library loggers (Celery's, uvicorn's) end up in the same lines."""
    settings = LogSettings()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Tracebacks carry no locals: those hold credentials.
    final: list[structlog.typing.Processor] = [
        structlog.processors.format_exc_info,
        _mask,
        _json
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
    level = settings.log_level.upper()
    _SINK.stream = sys.stdout
    # Our own lines do not pass through the standard library: it would cost a request a tenth of its time.
    structlog.configure(
        processors=[*shared, _whatever_happens(final)],
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _SINK)),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(_SINK)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    _log_what_ends()
    structlog.contextvars.bind_contextvars(service=service)


def write_to(stream: TextIO) -> None:
    """Write the lines there from now on."""
    _SINK.stream = stream


def _log_what_ends() -> None:
    """Python would print the end of a thread, of the process and of a finaliser as it is."""
    faults = get(__name__)

    def of_process(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            faults.critical("process.fault", exc_info=(kind, error, trace))

    def of_thread(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_value is not None and not issubclass(ended.exc_type, SystemExit):
            name = ended.thread.name if ended.thread else None
            faults.error("thread.fault", thread=name, exc_info=(ended.exc_type, ended.exc_value, ended.exc_traceback))

    def unraisable(found: "sys.UnraisableHookArgs") -> None:
        if found.exc_value is not None:
            faults.error("process.unraisable", exc_info=(found.exc_type, found.exc_value, found.exc_traceback))

    sys.excepthook, threading.excepthook, sys.unraisablehook = of_process, of_thread, unraisable


def get(name: str) -> structlog.typing.FilteringBoundLogger:
    """The logger called `name`. Events are `noun.verb_past`: `job.claimed`, `request.handled`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(name)
    return logger
