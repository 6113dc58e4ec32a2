"""The loggers of the notebook's process, as its jobs have them too: levels, handlers, what is passed on.

A handler that writes to a standard stream writes to the job's own. Any other one, as of a file, stays in the notebook;
what its logger says is in the log of the job.
"""

from __future__ import annotations

import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from jobcontainer.pickling.module_origin import travels
from jobcontainer.pickling.standard_streams import standard_stream, standard_streams, stream_name
from jobcontainer.worker.cpython_internals import formatter_arguments
from jobcontainer.worker.signed_code import packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_PLAIN = {"filters", "_name", "level", "formatter", "lock", "stream", "_closed"}  # what every handler of a stream has

_undo: list[Callable[[], object]] = []


def read_loggers(_module: Any) -> dict[str, Any]:
    """Return the levels and handlers of the loggers that have some; the root's level is part of the environment."""
    loggers = {name: one for name, one in logging.Logger.manager.loggerDict.items() if isinstance(one, logging.Logger)}
    return {
        "levels": {name: one.level for name, one in loggers.items() if one.level},
        "handlers": {one.name: given for one in (logging.root, *loggers.values()) if (given := _handlers_of(one))},
        "not passed on": [name for name, one in loggers.items() if not one.propagate],
        "disabled": logging.Logger.manager.disable,
    }


def _handlers_of(logger: logging.Logger) -> list[Any]:
    """Return the handlers of a logger that write to a standard stream, as plain data or else as signed code.

    Where there are only others, and none of a logger above writes there, it is the level of one that shall write to
    standard error; the root needs none for that.
    """
    given = [one for one in logger.handlers if not isinstance(one, logging.NullHandler)]
    found: list[Any] = []
    for one in given:
        if (plain := _plain(one)) is not None:
            found.append(plain)
            continue
        kinds = {type(one).__module__, type(one.formatter).__module__} - {"builtins", "logging"}
        if all(map(travels, kinds)):  # else a job would import its library for it
            with contextlib.suppress(TypeError):
                found.append(packed(one))
    if given and not found and logger is not logging.root and not any(map(_handlers_of, _above(logger))):
        return [min(one.level for one in given)]
    return found


def _plain(handler: logging.Handler) -> dict[str, Any] | None:
    """Return what makes a handler again that is a stream, a level and texts, as most are; None for others."""
    if type(handler) is not logging.StreamHandler or handler.filters or not vars(handler).keys() <= _PLAIN:
        return None
    stream, formatter = stream_name(handler.stream, standard_streams()), handler.formatter
    texts = None if formatter is None else formatter_arguments(formatter)
    if stream is None or (formatter is not None and texts is None):
        return None
    return {"stream": stream, "level": handler.level, "formatter": texts}


def _above(logger: logging.Logger) -> Iterator[logging.Logger]:
    """Yield the loggers that get the texts of one as well."""
    while logger.propagate and logger.parent is not None:
        logger = logger.parent
        yield logger


def write_loggers(_module: Any, settings: Mapping[str, Any]) -> None:
    """Set the levels and handlers that were read, in place of those that were set here before."""
    while _undo:
        _undo.pop()()
    for name, level in settings["levels"].items():
        logger = logging.getLogger(name)
        _undo.append(partial(logger.setLevel, logger.level))
        logger.setLevel(level)
    for name, handlers in settings["handlers"].items():
        logger = logging.getLogger(name)
        for given in handlers if not logger.handlers else ():  # else a module that was loaded has set its own
            with contextlib.suppress(Exception):  # its class can't be loaded here
                handler = _handler_of(given)
                _undo.append(partial(logger.removeHandler, handler))
                logger.addHandler(handler)
    for name in settings["not passed on"]:
        logger = logging.getLogger(name)
        _undo.append(partial(setattr, logger, "propagate", logger.propagate))
        logger.propagate = False
    logging.disable(settings["disabled"])


def _handler_of(given: Any) -> logging.Handler:
    if isinstance(given, list):
        handler: logging.Handler = unpacked(given)
        return handler
    plain = given if isinstance(given, dict) else {"stream": "stderr", "level": given, "formatter": None}
    made = logging.StreamHandler(standard_stream(plain["stream"]))
    made.setLevel(plain["level"])
    if plain["formatter"] is not None:
        made.setFormatter(logging.Formatter(**plain["formatter"]))
    return made
