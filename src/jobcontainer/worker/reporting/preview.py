"""Makes the preview of a job's end, in the job: the text and other forms of its result, or a traceback.

The forms come from methods of the user's classes (``__repr__``, ``_repr_html_``, an exception's ``__str__``), which may
raise anything, return anything, and hang. None of that costs the job its result, which is on disk before. Whatever a
method raises becomes a sentence of the preview. :func:`within_time` bounds them: after some seconds an exception is
raised in the main thread; where that has no effect, as C code holds the interpreter's lock or user code catches it, the
watchdog thread of :mod:`faulthandler` ends the process, with a traceback in the log. The keeper then finds the result
file, which decides how the job ended.

IPython takes longer to import than most jobs run. So the methods that it looks for are called from here, and only the
figures of matplotlib, which have none, are drawn by its formatters.
"""

from __future__ import annotations

import base64
import contextlib
import faulthandler
import json
import signal
import traceback
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from jobcontainer.storage.preview import LONGEST_TEXT, Preview, write_preview
from jobcontainer.storage.result import qualified_name
from jobcontainer.worker.reporting.bounded_repr import bounded_repr

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

SECONDS: Final = 3.0
"""How long the methods of one result or exception may take together."""

Limit: TypeAlias = "Callable[[Callable[[], object]], object]"
"""Calls a function; :func:`within_time`, or something that just calls it where user code is not interrupted."""

_LOG = 2
_LARGEST_FORM: Final = 1_000_000  # characters
_METHODS: Final = {
    "text/html": "_repr_html_",
    "text/markdown": "_repr_markdown_",
    "text/latex": "_repr_latex_",
    "image/svg+xml": "_repr_svg_",
    "image/png": "_repr_png_",
    "image/jpeg": "_repr_jpeg_",
    "application/json": "_repr_json_",
}
_PLAIN: Final = (bool, int, float, complex, str, bytes)  # no code of a user makes their text


class _GivenUp(BaseException):
    """Raised in the midst of a method that takes too long; its text says why."""


def within_time(call: Callable[[], object], seconds: float = SECONDS) -> None:
    """Call something, interrupt it once it takes too long, and end the process where that has no effect.

    In the main thread only. A cancel of the job, or its timeout (SIGINT), interrupts it too. It is interrupted once:
    from then on, and when the call has returned, nothing is raised. What interrupts it leaves this function too.
    """
    over = False
    before: dict[signal.Signals, Any] = {}

    def interrupt(number: int, _frame: FrameType | None) -> None:
        nonlocal over
        if not over:
            over = True
            in_time = number == signal.SIGINT
            raise _GivenUp("was cut off, as the job was to end" if in_time else f"took longer than {seconds:g} s")

    try:
        try:
            for number in (signal.SIGALRM, signal.SIGINT):
                before[number] = signal.signal(number, interrupt)
            faulthandler.dump_traceback_later(2 * seconds, exit=True, file=_LOG)
            signal.setitimer(signal.ITIMER_REAL, seconds)
            call()
        finally:
            over = True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def preview_result(path: Path, value: object, size: int, limit: Limit) -> None:
    """Write the preview of a result; nothing where it is None.

    Args:
        path: the file; that of an earlier attempt is replaced.
        value: what ``run()`` returned.
        size: of the result file in bytes.
        limit: calls what calls methods of the user's classes.
    """
    with contextlib.suppress(OSError):  # a full disk
        if value is None:
            path.unlink(missing_ok=True)
        elif type(value) in _PLAIN:
            write_preview(path, _Forms(value).preview(size))
        else:
            write_preview(path, Preview(size=size, problem="To make its text ended the job's process."))
            forms = _Forms(value)
            with contextlib.suppress(_GivenUp):  # it says so
                limit(forms.make)
            write_preview(path, forms.preview(size))


def preview_error(path: Path, text: str) -> None:
    """Write the preview of what ``run()`` raised: its traceback."""
    if len(text) > LONGEST_TEXT:
        text = f"… ({len(text):,} characters) {text[-LONGEST_TEXT:]}"
    with contextlib.suppress(OSError):
        write_preview(path, Preview(traceback=text))


class _Forms:
    """The forms of a value by MIME type, their metadata, and what went wrong."""

    def __init__(self, value: object) -> None:
        self._value = value
        self._name = name_of(value)
        self._data: dict[str, Any] = {"text/plain": f"<{self._name} object>"}  # where its own text can't be had
        self._metadata: dict[str, Any] = {}
        self._problems: list[str] = []
        if type(value) in _PLAIN:
            self._data["text/plain"] = bounded_repr(value, LONGEST_TEXT)

    def preview(self, size: int) -> Preview:
        """Return what was made."""
        problem = " ".join(self._problems)
        return Preview(type_name=self._name, size=size, data=self._data, metadata=self._metadata, problem=problem)

    def make(self) -> None:
        """Call the methods of the value, one after another."""
        try:
            self._add("text/plain", "__repr__", lambda: bounded_repr(self._value, LONGEST_TEXT))
            if type(self._value).__module__.startswith("matplotlib."):
                self._draw()
            bundle, metadata = self._call("_repr_mimebundle_")
            self._metadata |= metadata
            for mime, form in bundle.items() if isinstance(bundle, dict) else ():
                if mime != "text/plain" and isinstance(mime, str):
                    self._keep(mime, "_repr_mimebundle_", form)
            for mime, name in _METHODS.items():
                if mime not in self._data:
                    self._add(mime, name)
        except _GivenUp:
            raise
        except BaseException as error:  # noqa: BLE001 -- whatever a hostile class leaves behind
            self._problems.append(f"Its forms can't be made: {_raised(error)}.")

    def _draw(self) -> None:
        from jobcontainer.worker.reporting import mime_bundle  # noqa: PLC0415 -- imports IPython, see above

        data, self._metadata = mime_bundle.forms_of(self._value)
        self._data |= {mime: form for mime, form in data.items() if mime != "text/plain"}

    def _add(self, mime: str, name: str, method: Callable[[], Any] | None = None) -> None:
        form, metadata = self._call(name, method)
        if form is not None:
            self._keep(mime, name, form)
            self._metadata |= {mime: metadata} if metadata else {}

    def _call(self, name: str, method: Callable[[], Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Call a method, and return what it returned, None where it raises, and its metadata."""
        try:
            made = self._own(name) if method is None else method()
        except BaseException as error:
            self._problems.append(f"Its {name}() {_raised(error)}.")
            if isinstance(error, _GivenUp):
                raise
            return None, {}
        if type(made) is not tuple or len(made) != 2:  # noqa: PLR2004 -- with metadata, as IPython takes it
            return made, {}
        metadata = _json(made[1])
        return made[0], metadata if isinstance(metadata, dict) else {}

    def _own(self, name: str) -> Any:
        """Call a method that the class of the value has; what an instance answers to every name is none."""
        value = self._value
        if isinstance(value, type) or getattr(type(value), name, None) is None:
            return None
        return getattr(value, name)()

    def _keep(self, mime: str, name: str, form: object) -> None:
        """Keep a form that can be shown."""
        if isinstance(form, bytes | bytearray | memoryview):
            form = base64.b64encode(form).decode("ascii")
        kept = str.__str__(form) if isinstance(form, str) else _json(form) if mime.endswith("json") else None
        if kept is None:
            self._problems.append(f"Its {name}() returned an object of type {name_of(form)} for {mime}.")
        elif isinstance(kept, str) and len(kept) > _LARGEST_FORM:
            self._problems.append(f"Its {mime} has {len(kept):,} characters, which are too many to be shown.")
        else:
            self._data[mime] = kept


def described(error: BaseException, limit: Limit) -> tuple[str, str]:
    """Return the message of an exception, and its traceback as Python prints it; sentences where they can't be had."""
    made: list[str] = []

    def describe() -> None:
        made.append(str.__str__(str(error)))
        made.append("".join(traceback.format_exception(error)))

    problem = ""
    try:
        limit(describe)
    except BaseException as failure:  # noqa: BLE001 -- user code
        problem = _raised(failure)
    message = made[0] if made else f"(its message can't be had: its __str__() {problem})"
    if len(made) > 1:
        return message, made[1]
    frames = "".join(traceback.format_tb(error.__traceback__))
    return message, f"Traceback (most recent call last):\n{frames}{name_of(error)}: {message}\n"


def name_of(value: object) -> str:
    """Return the qualified name of a value's type, also where its metaclass hides that."""
    try:
        return str.__str__(qualified_name(type(value)))
    except BaseException:  # noqa: BLE001 -- user code
        return "object"


def _raised(error: BaseException) -> str:
    if type(error) is _GivenUp:
        return str(error)
    with contextlib.suppress(BaseException):
        return f"raised {name_of(error)}: {str.__str__(str(error))[:200]}".removesuffix(": ")
    return f"raised {name_of(error)}"


def _json(data: Any) -> Any:
    """Return a copy of plain data; None where JSON can't hold it."""
    try:
        return json.loads(json.dumps(data, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return None
