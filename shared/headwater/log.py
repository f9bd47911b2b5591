"""The structured log: one event per line, bound ids, secrets masked.

Whoever opens a secret registers it with `mask_for` around its use; the last processor replaces it wherever it stands.
Within `masks_kept` it stays masked to the end of that block: what went wrong is logged when its source is closed.
"""

import json
import logging
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote, quote_plus

import structlog

from headwater.settings import LogSettings

MASK: Final = "[masked]"
_SHORTEST_MASKED: Final = 4  # a shorter secret would mask innocent text everywhere and say that it is that short
_URL_PASSWORD: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/]*@(?=[^\s@]*)", re.IGNORECASE)

_live_secrets: dict[int, tuple[str, ...]] = {}
_kept: list[set[int]] = []
_lock = threading.Lock()


def _spellings(secret: str) -> set[str]:
    return {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1]}


@contextmanager
def mask_for(secrets: Iterable[str]) -> Iterator[None]:
    """While the block runs, every spelling of `secrets` is masked in all that this process logs.

    Within a block of `masks_kept`, until that one ends.
    """
    spellings = {text for secret in secrets for text in _spellings(secret) if len(text) >= _SHORTEST_MASKED}
    ordered = tuple(sorted(spellings, key=len, reverse=True))
    with _lock:
        _live_secrets[id(ordered)] = ordered
    try:
        yield
    finally:
        with _lock:
            if _kept:
                _kept[-1].add(id(ordered))
            else:
                _live_secrets.pop(id(ordered), None)


@contextmanager
def masks_kept() -> Iterator[None]:
    """What `mask_for` masks within the block stays masked until it ends. For a process that does one job at a time."""
    with _lock:
        _kept.append(set())
    try:
        yield
    finally:
        with _lock:
            for key in _kept.pop():
                _live_secrets.pop(key, None)


def masked(text: str) -> str:
    """`text` without the live secrets and without passwords inside URLs."""
    for spellings in tuple(_live_secrets.values()):
        for spelling in spellings:
            text = text.replace(spelling, MASK)
    if "://" not in text:
        return text
    return _URL_PASSWORD.sub(rf"\g<scheme>{MASK}@", text)


def _masked_value(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {_masked_value(key): _masked_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked_value(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return masked(str(value))


def _mask(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {key: _masked_value(value) for key, value in event.items()}


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
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
    level = settings.log_level.upper()
    # Our own lines do not pass through the standard library: it would cost a request a tenth of its time.
    structlog.configure(
        processors=[*shared, *final],
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    structlog.contextvars.bind_contextvars(service=service)


def get(name: str) -> structlog.typing.FilteringBoundLogger:
    """The logger called `name`. Events are `noun.verb_past`: `job.claimed`, `request.handled`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(name)
    return logger
