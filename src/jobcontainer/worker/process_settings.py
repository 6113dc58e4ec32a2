"""Settings of the notebook's process that its jobs have too: what code set in Python and in libraries by a call.

:func:`capture` reads them in the process that submits; only of libraries that are loaded there, and only what plain
data can say, and functions as signed code. :func:`apply` sets them in the job: at once where a library is loaded, else
when the job imports it, so that nothing is imported for them.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import types
import warnings
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling.module_origin import is_local, travels
from jobcontainer.worker.logging_settings import read_loggers, write_loggers
from jobcontainer.worker.reporting.import_hooks import Hooks
from jobcontainer.worker.signed_code import packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_DECIMAL: Final = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
_OF_THE_DISPLAY: Final = ("backend", "interactive", "toolbar", "webagg", "timezone")  # rcParams of a place, not a style
_OF_SYS: Final = ("recursionlimit", "_int_max_str_digits")  # each behind "get" and "set"
_NUMBERS: Final = (type(None), bool, int, float)
_OF_TEXTS: Final = ("format", "__mod__")

_hooks = Hooks()
_category_hooks = Hooks()
_applied: Mapping[str, Any] = {}
_filters_of_imports: list[Any] = []  # that libraries have added which the notebook has not loaded, newest first


def capture() -> dict[str, Any]:
    """Return the settings of this process, by the module whose they are, as data that JSON can carry."""
    found: dict[str, Any] = {}
    for name, (read, _) in _SETTINGS.items():
        module = sys.modules.get(name)
        if module is not None:
            with contextlib.suppress(Exception):  # a library that is half imported, or of another version
                found[name] = read(module)
    return {name: settings for name, settings in found.items() if settings}


def apply(settings: Mapping[str, Any]) -> None:
    """Make the settings those of this process; libraries that are not loaded get them when they are imported."""
    global _applied  # noqa: PLW0603 -- of the process
    _applied = settings
    _hooks.undo()
    _category_hooks.undo()
    for name, content in settings.items():
        if name in _SETTINGS:
            _hooks.when_imported(name, partial(_set, *_SETTINGS[name], content))
    if _filters_of_imports:  # as if the job had imported them after this
        _put_filters([*(one for one in _filters_of_imports if one not in warnings.filters), *warnings.filters])


def keep_filters_since(before: Sequence[Any]) -> None:
    """Keep, for the jobs that come from here, the warning filters that were added to these by an import."""
    _filters_of_imports[:0] = [one for one in warnings.filters if one not in before]


def apply_again() -> None:
    """Set them once more, now that the job is loaded.

    The notebook has what its modules had set when they were imported, and what was set after it: in the job, their top
    level has just run. And a warning filter may be for a category that is the notebook's own.
    """
    apply(_applied)


@contextlib.contextmanager
def warnings_as_in(settings: Mapping[str, Any]) -> Iterator[None]:
    """Have the warning filters of these settings meanwhile, so that an import that warns in a job warns here."""
    before = list(warnings.filters)
    apply({name: content for name, content in settings.items() if name == "warnings"})
    try:
        yield
    finally:
        _hooks.undo()
        _category_hooks.undo()
        _put_filters(before)


def _put_filters(filters: Sequence[Any]) -> None:
    warnings.resetwarnings()  # which also has each of them decided anew
    warnings.filters[:] = filters  # type: ignore[index] # it is a list


def _set(read: Callable[[Any], Any], write: Callable[[Any, Any], object], content: Any, module: Any) -> None:
    with contextlib.suppress(Exception):  # a library of another version; the job goes on with its own settings
        if read(module) != content:  # to set all of them would copy hundreds of pages that the job has of its keeper
            write(module, content)


# --- Python's own ---------------------------------------------------------------------------------------------------


def _read_filters(_module: Any) -> list[list[Any]]:
    """Return the warning filters: action, message, category, module and line, the first one first."""
    filters: Any = warnings.filters  # the categories are classes
    return [
        [action, _pattern(message), f"{category.__module__}:{category.__qualname__}", _pattern(module), line]
        for action, message, category, module, line in filters
    ]


def _pattern(given: Any) -> str:
    if given is None:
        return ""
    return re.escape(given) + r"\Z" if isinstance(given, str) else str(given.pattern)


def _write_filters(_module: Any, filters: Sequence[Sequence[Any]]) -> None:
    warnings.resetwarnings()
    later = dict.fromkeys(one[2].partition(":")[0] for one in filters if _category(one) is None)
    for one in filters:
        if _category(one) is not None:
            _add_filter(one, append=True)
    for name in later:  # its category is not loaded, so nobody can warn with it yet
        _category_hooks.when_imported(name, partial(_insert_filters, filters, warnings.filters))


def _insert_filters(filters: Sequence[Sequence[Any]], base: Any, module: Any) -> None:
    """Put the filters whose category a module has at their places; what the job has set stays before or after all.

    Args:
        filters: all that the notebook has, in their order.
        base: the list that they were put into; where ``catch_warnings`` has put it away, a copy holds at this moment.
        module: the module, which has just been imported.
    """
    current: Any = warnings.filters
    try:
        for warnings.filters in [current] if base is current else [current, base]:
            _insert_into(warnings.filters, filters, module.__name__)
    finally:
        warnings.filters = current


def _insert_into(present: Any, filters: Sequence[Sequence[Any]], module: str) -> None:
    loaded = [one for one in filters if _category(one) is not None]
    known = _read_filters(None)
    place = next((place for place, one in enumerate(known) if one in loaded), len(known))
    for one in loaded:
        if one in known:
            place = max(place, known.index(one) + 1)
        elif one[2].partition(":")[0] == module:
            _add_filter(one, append=False)
            present.insert(place, present.pop(0))
            known.insert(place, list(one))
            place += 1


def _category(one: Sequence[Any]) -> Any:
    return _named(one[2])


def _named(place: str) -> Any:
    """Find what a module that is loaded has under a name, as ``module:name``; None for nothing."""
    home, _, names = place.partition(":")
    found: Any = sys.modules.get(home)
    for name in names.split("."):
        found = getattr(found, name, None)
    return found


def _add_filter(one: Sequence[Any], *, append: bool) -> None:
    action, message, _, module, line = one
    warnings.filterwarnings(action, message, _category(one), module, line, append=append)


def _write_sys(module: Any, settings: Sequence[int]) -> None:
    for name, value in zip(_OF_SYS, settings, strict=True):
        getattr(module, f"set{name}")(value)


def _read_decimal(decimal: Any) -> dict[str, Any]:
    context = decimal.getcontext()
    if all(getattr(context, name) == getattr(decimal.DefaultContext, name) for name in _DECIMAL) and (
        context.traps == decimal.DefaultContext.traps
    ):
        return {}
    traps = [signal.__name__ for signal, traps in context.traps.items() if traps]
    return {name: getattr(context, name) for name in _DECIMAL} | {"traps": traps}


def _write_decimal(decimal: Any, settings: Mapping[str, Any]) -> None:
    traps = [getattr(decimal, name) for name in settings["traps"]]
    decimal.setcontext(decimal.Context(**{**settings, "traps": traps}))


# --- libraries ------------------------------------------------------------------------------------------------------


def _read_numpy(numpy: Any) -> dict[str, Any]:
    return {"errors": numpy.geterr(), "printing": _plain_items(numpy.get_printoptions().items())}


def _write_numpy(numpy: Any, settings: Mapping[str, Any]) -> None:
    numpy.seterr(**settings["errors"])
    numpy.set_printoptions(**{name: _value_of(data) for name, data in settings["printing"].items()})


def _read_pandas(pandas: Any) -> dict[str, Any]:
    return _plain_items(_options_in(pandas.options.d))  # to ask for them one by one takes longer than a submission


def _options_in(options: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the full names of the options, and their values; a group of them is a dict."""
    for name, value in options.items():
        if isinstance(value, dict):
            yield from _options_in(value, f"{above}{name}.")
        else:
            yield above + name, value


def _write_pandas(pandas: Any, settings: Mapping[str, Any]) -> None:
    for name, data in settings.items():
        with contextlib.suppress(Exception):  # an option that this version does not have
            if pandas.get_option(name) != (value := _value_of(data)):
                pandas.set_option(name, value)


def _read_matplotlib(matplotlib: Any) -> dict[str, Any]:
    """Return the parameters that differ from matplotlib's own defaults, as the dicts have them, without a check."""
    default = dict(dict.items(matplotlib.rcParamsDefault))
    changed = {name: value for name, value in dict.items(matplotlib.rcParams) if value != default.get(name)}
    return _plain_items((name, value) for name, value in changed.items() if not name.startswith(_OF_THE_DISPLAY))


def _write_matplotlib(matplotlib: Any, settings: Mapping[str, Any]) -> None:
    for name, data in settings.items():
        with contextlib.suppress(Exception):  # a parameter that this version does not have
            value = _value_of(data)
            matplotlib.rcParams[name] = matplotlib.cycler(**value) if isinstance(value, dict) else value


def _read_torch(torch: Any) -> dict[str, Any]:
    """Return what changes numbers: the type of what has none, and how exact and repeatable sums are."""
    return {
        "type": str(torch.get_default_dtype()).rpartition(".")[2],
        "precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def _write_torch(torch: Any, settings: Mapping[str, Any]) -> None:
    torch.set_default_dtype(getattr(torch, settings["type"]))
    torch.set_float32_matmul_precision(settings["precision"])
    torch.use_deterministic_algorithms(settings["deterministic"])


def _plain_items(items: Any) -> dict[str, Any]:
    """Return the items whose values are plain data, or functions that can be said in plain data, or cyclers."""
    found = {}
    for name, value in items:
        with contextlib.suppress(TypeError):
            found[name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    """Return a value as JSON has it.

    Raises:
        TypeError: it can't be said in plain data, as a generator can't.
    """
    if isinstance(value, str):
        return str.__str__(value)  # that of an enum too
    if type(value) in _NUMBERS:
        return value
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return _plain_other(value)


def _plain_other(value: Any) -> dict[str, Any]:
    """Return what is no value of JSON's own kinds as an object of JSON with one word that says what it is."""
    if isinstance(value, tuple):
        return {"tuple": [_plain(item) for item in value]}
    if type(value) is dict:
        return {"dict": [[_plain(key), _plain(item)] for key, item in value.items()]}
    if hasattr(value, "by_key"):
        return {"items": {name: _plain(items) for name, items in value.by_key().items()}}
    name, owner = getattr(value, "__name__", ""), getattr(value, "__self__", None)
    if name in _OF_TEXTS and type(owner) is str:
        return {"method": [owner, name]}
    module = getattr(value, "__module__", None) or ""
    place = f"{module}:{getattr(value, '__qualname__', '')}"
    if callable(value) and _named(place) is value and not (travels(module) or is_local(module)):
        return {"function": place}
    if isinstance(value, (types.FunctionType, functools.partial)):
        return {"code": packed(value)}
    raise TypeError(f"{value!r} is no plain data")


def _value_of(data: Any) -> Any:
    if isinstance(data, list):
        return [_value_of(item) for item in data]
    if not isinstance(data, Mapping):
        return data
    [(word, content)] = data.items()
    return _MAKERS[word](content)


_MAKERS: Final[dict[str, Callable[[Any], Any]]] = {
    "tuple": lambda items: tuple(map(_value_of, items)),
    "dict": lambda pairs: {_value_of(key): _value_of(item) for key, item in pairs},
    "items": lambda by_key: by_key,  # of a cycler
    "method": lambda pair: getattr(*pair),
    "function": _named,
    "code": unpacked,
}


_SETTINGS: Final[dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], object]]]] = {
    "sys": (lambda module: [getattr(module, f"get{name}")() for name in _OF_SYS], _write_sys),
    "warnings": (_read_filters, _write_filters),
    "logging": (read_loggers, write_loggers),
    "decimal": (_read_decimal, _write_decimal),
    "socket": (lambda module: module.getdefaulttimeout(), lambda module, timeout: module.setdefaulttimeout(timeout)),
    "locale": (
        lambda module: module.setlocale(module.LC_ALL),
        lambda module, name: module.setlocale(module.LC_ALL, name),
    ),
    "numpy": (_read_numpy, _write_numpy),
    "pandas": (_read_pandas, _write_pandas),
    "sklearn": (lambda module: module.get_config(), lambda module, config: module.set_config(**config)),
    "matplotlib": (_read_matplotlib, _write_matplotlib),
    "torch": (_read_torch, _write_torch),
}
"""How the settings of each module are read, and set."""
