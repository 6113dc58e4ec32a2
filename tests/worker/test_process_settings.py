"""Settings of Python and of libraries, taken in one process and set in another."""

from __future__ import annotations

import decimal
import functools
import importlib
import io
import json
import locale
import logging
import socket
import subprocess
import sys
import textwrap
import threading
import warnings

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from jobcontainer import JobPool
from jobcontainer.worker import process_settings

pytestmark = pytest.mark.usefixtures("as_notebook")


@pytest.fixture
def settled():
    """Put every setting back that a test changes."""
    with (
        warnings.catch_warnings(),
        np.errstate(),
        np.printoptions(),
        decimal.localcontext(),
        mpl.rc_context(),
        pd.option_context("display.max_rows", 60, "display.float_format", None),
    ):
        limits, numbers = (sys.getrecursionlimit(), sys.get_int_max_str_digits()), locale.setlocale(locale.LC_ALL)
        yield
        sys.setrecursionlimit(limits[0])
        sys.set_int_max_str_digits(limits[1])
        socket.setdefaulttimeout(None)
        locale.setlocale(locale.LC_ALL, numbers)
        logging.disable(logging.NOTSET)
        logging.getLogger("of.a.library").setLevel(logging.NOTSET)


@pytest.fixture
def sklearn_settled():
    """Put scikit-learn's settings back too; it is imported by the tests of it alone, as that takes seconds."""
    import sklearn  # noqa: PLC0415 -- see above

    with sklearn.config_context():
        yield


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with JobPool(1, store=tmp_path_factory.mktemp("store")) as pool:
        yield pool


@pytest.fixture
def torch_settled():
    """Put PyTorch's settings back too."""
    torch = pytest.importorskip("torch")
    yield
    torch.set_default_dtype(torch.float32)
    torch.use_deterministic_algorithms(False)  # noqa: FBT003 -- torch's own


def set_recursion():
    sys.setrecursionlimit(4321)
    sys.set_int_max_str_digits(100_000)


def set_timeout():
    socket.setdefaulttimeout(7.5)


def set_locale():
    locale.setlocale(locale.LC_CTYPE, "C" if "UTF" in locale.setlocale(locale.LC_CTYPE) else "C.UTF-8")


def set_torch():
    sys.modules["torch"].set_default_dtype(sys.modules["torch"].float64)
    sys.modules["torch"].use_deterministic_algorithms(True)  # noqa: FBT003 -- torch's own


def set_filter():
    warnings.filterwarnings("ignore", "hush", RuntimeWarning, "some_module", 5)


def set_levels():
    logging.getLogger("of.a.library").setLevel(logging.DEBUG)


def disable_logging():
    logging.disable(logging.INFO)


def set_decimal():
    decimal.getcontext().prec = 5
    decimal.getcontext().traps[decimal.Inexact] = True


def set_errors():
    np.seterr(over="raise", divide="ignore")


def set_printing():
    np.set_printoptions(precision=3, suppress=True, legacy="1.25")


def set_formatters():
    formatters = {"float_kind": "<{:.2f}>".format, "int": "%04d".__mod__, "bool": ascii, "str_kind": textwrap.dedent}
    np.set_printoptions(formatter=formatters)


SIGN = "$"


def priced(number):
    return f"{SIGN}{number:.1f}"


def set_functions():
    np.set_printoptions(formatter={"float_kind": lambda number: f"<{number:.1f}>"})
    pd.options.display.float_format = functools.partial(priced)


HUGE = bytes(1_000_000)


def set_pandas():
    pd.set_option("display.max_rows", 7)
    pd.options.display.float_format = "{:.1f}".format


def set_sklearn():
    sys.modules["sklearn"].set_config(transform_output="pandas", display="text")


def set_matplotlib():
    mpl.rcParams["lines.linewidth"] = 4.5
    mpl.rcParams["axes.prop_cycle"] = mpl.cycler(color=["r", "g"], linestyle=["-", ":"])
    mpl.rcParams["legend.loc"] = (0.5, 0.25)


FILTERS = "[(a, m and m.pattern, c, o and o.pattern, n) for a, m, c, o, n in warnings.filters if n == 5]"
PARAMETERS = (
    "[mpl.rcParams[name] for name in ('lines.linewidth', 'legend.loc')] + list(mpl.rcParams['axes.prop_cycle'])"
)
SETTINGS = {
    set_recursion: (
        "import sys",
        "sys.getrecursionlimit(), len(str(10 ** 5000)) if sys.get_int_max_str_digits() > 5000 else 0",
    ),
    set_timeout: ("import socket", "socket.getdefaulttimeout()"),
    set_locale: ("import locale", "locale.setlocale(locale.LC_ALL)"),
    set_torch: ("import torch", "str(torch.zeros(1).dtype), torch.are_deterministic_algorithms_enabled()"),
    set_filter: ("import warnings", FILTERS),
    set_levels: ("import logging", "logging.getLogger('of.a.library').level"),
    disable_logging: ("import logging", "logging.getLogger('anybody').isEnabledFor(20), logging.root.manager.disable"),
    set_decimal: ("import decimal", "(decimal.getcontext().prec, decimal.getcontext().traps[decimal.Inexact])"),
    set_errors: ("import numpy as np", "np.geterr()"),
    set_printing: ("import numpy as np", "str(np.array([1.23456, 1e-9]))"),
    set_formatters: ("import numpy as np", "str([np.array([1.23456]), np.array([7, 8]), np.array(['  a'])])"),
    set_functions: (
        "import pandas as pd, numpy as np",
        "str([np.array([1.25, 2])]), repr(pd.Series([1.25])), repr(pd.DataFrame({'a': [2.0]}))",
    ),
    set_pandas: ("import pandas as pd", "(pd.get_option('display.max_rows'), repr(pd.Series([1.25])))"),
    set_sklearn: ("import sklearn", "sklearn.get_config()"),
    set_matplotlib: ("import matplotlib as mpl", PARAMETERS),
}


OF_SLOW = {set_sklearn: "sklearn_settled", set_torch: "torch_settled"}
"""What puts the settings of a library back whose import takes seconds."""


class Looks:
    def __init__(self, imports, expression):
        self.imports, self.expression = imports, expression

    def run(self):
        names = {}
        exec(self.imports, names)  # noqa: S102 -- a library that the process file does not name
        return eval(self.expression, names)  # noqa: S307 -- as above


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("isolation", ["fresh", "reuse"])
@pytest.mark.parametrize(
    "change",
    [pytest.param(change, marks=pytest.mark.slow if change in OF_SLOW else ()) for change in SETTINGS],
    ids=lambda change: change.__name__,
)
def test_a_setting_follows_the_job(request, pool, change, isolation):
    """What is set when the job is submitted holds in it, and what was before it does where that is put back."""
    if change in OF_SLOW:
        request.getfixturevalue(OF_SLOW[change])
    look, sender = Looks(*SETTINGS[change]), pool.with_options(isolation=isolation)
    before = look.run()
    assert sender.submit(look).result() == before
    change()
    assert look.run() != before
    assert sender.submit(look).result() == look.run()


@pytest.mark.slow
@pytest.mark.usefixtures("settled")
def test_a_category_of_a_library_holds_once_the_job_imports_it(pool):
    """A filter for a category of warnings is set when its module is loaded; none is imported for it."""
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 -- it takes seconds

    warnings.simplefilter("error", ConvergenceWarning)
    assert not pool.submit(Looks("import sys", "'sklearn' in sys.modules")).result()
    action = "warnings.filters[[f[2] for f in warnings.filters].index(e.ConvergenceWarning)][0]"
    assert pool.submit(Looks("import warnings, sklearn.exceptions as e", action)).result() == "error"


LATER = """
import warnings
CHANGE
import sklearn.exceptions as e
"""
KINDS = "(e.ConvergenceWarning, UserWarning, RuntimeWarning, e.FitFailedWarning)"
ORDER = f"[f[0] for f in warnings.filters if f[2] in {KINDS}]"


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("", ["ignore", "error", "always", "once"]),
        ("warnings.simplefilter('default', UserWarning)", ["default", "ignore", "error", "always", "once"]),
        (
            "warnings.filterwarnings('module', category=UserWarning, append=True)",
            ["ignore", "error", "always", "once", "module"],
        ),
        ("warnings.resetwarnings()", ["error", "once"]),
    ],
    ids=["as here", "another before it", "another after it", "none"],
)
def test_a_category_that_is_imported_late_has_its_place_among_the_filters(pool, change, expected):
    """Between those that stand before and after it here; what the job sets goes before or after all of them."""
    import sklearn.exceptions as e  # noqa: PLC0415 -- it takes seconds

    for action, category in [
        ("once", e.FitFailedWarning),
        ("always", RuntimeWarning),
        ("error", e.ConvergenceWarning),
        ("ignore", UserWarning),
    ]:
        warnings.simplefilter(action, category)
    names = {"warnings": warnings, "e": e}
    assert [action for action in eval(ORDER, names) if action != "default"] == ["ignore", "error", "always", "once"]  # noqa: S307
    assert pool.submit(Looks(LATER.replace("CHANGE", change), ORDER)).result() == expected


@pytest.mark.usefixtures("settled")
def test_a_category_that_is_imported_while_warnings_are_caught_has_its_place_after_that_too(pool):
    """``catch_warnings`` puts the filters away, and what is imported inside it sets its filters for good."""
    import sklearn.exceptions as e  # noqa: PLC0415 -- it takes seconds

    warnings.simplefilter("error", e.ConvergenceWarning)
    warnings.simplefilter("ignore", UserWarning)
    source = """
        import warnings
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            import sklearn.exceptions as e
            places = [(f[0], f[2]) for f in warnings.filters]
            wanted = ("always", Warning), ("ignore", UserWarning), ("error", e.ConvergenceWarning)
            caught, *ours = map(places.index, wanted)
    """
    look = Looks(textwrap.dedent(source), f"(caught < ours[0], ours[1] - ours[0], {ORDER}[:2])")
    assert pool.submit(look).result() == (True, 1, ["ignore", "error"])


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("isolation", ["fresh", "reuse"])
def test_a_category_of_the_notebook_holds(pool, monkeypatch, isolation):
    """A filter for a category that is made in the notebook is set in the job, where the class is loaded with it."""
    own = type("OwnWarning", (UserWarning,), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "OwnWarning", own, raising=False)
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", own)

    class Warns:
        def run(self):
            warnings.warn("own", own, stacklevel=1)

    assert type(pool.with_options(isolation=isolation).submit(Warns()).exception()) is own


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("isolation", ["fresh", "reuse"])
def test_what_the_notebook_set_after_a_module_did_holds(pool, tmp_path, monkeypatch, isolation):
    """A module beside the notebook sets them when it is imported, and so again in the job; the notebook's are later."""
    name = f"sets_{isolation}"
    path = tmp_path / f"{name}.py"
    path.write_text(
        "import logging, warnings, numpy\nwarnings.simplefilter('always'); numpy.seterr(all='ignore')\n"
        "logging.getLogger('of.a.library').setLevel(10)\nclass Category(UserWarning): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(name)
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", module.Category)
    set_errors()
    logging.getLogger("of.a.library").setLevel(logging.ERROR)

    class Sees:
        def run(self):
            first = [(one[0], one[2].__name__) for one in warnings.filters[:2]]
            return module.__name__, first, np.geterr(), logging.getLogger("of.a.library").level

    assert pool.with_options(isolation=isolation).submit(Sees()).result() == Sees().run()


class Shouts(logging.Formatter):
    def format(self, record):
        return super().format(record).upper()


@pytest.fixture
def handled():
    """Loggers of the notebook with handlers, by their names, which are taken away afterwards."""

    def handle(name, *handlers, level=logging.DEBUG):
        logger = logging.getLogger(name)
        made.append(logger)
        logger.setLevel(level)
        for handler in handlers:
            logger.addHandler(handler)
        return logger

    made = []
    yield handle
    for logger in made:
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


class Says:
    def run(self):
        for name in ("spoken", "spoken.below", "spoken.filed", "shouted", "filed", "silent"):
            logging.getLogger(name).debug("said by %s", name)


@pytest.mark.parametrize("isolation", ["fresh", "reuse"])
def test_handlers_of_loggers_follow_the_job(pool, tmp_path, handled, isolation):
    """Each writes to the job's log in its form, once; one that writes elsewhere stays, and its texts are in the log."""
    spoken, shouted = logging.StreamHandler(sys.stdout), logging.StreamHandler()
    spoken.setFormatter(logging.Formatter("{levelname} {message}", style="{"))
    shouted.setFormatter(Shouts("%(message)s!"))
    handled("spoken", spoken).propagate = False
    handled("shouted", shouted)
    handled("filed", logging.FileHandler(tmp_path / "log.txt", delay=True), logging.StreamHandler(io.StringIO()))
    handled("spoken.filed", logging.FileHandler(tmp_path / "log.txt", delay=True))
    handled("silent", logging.NullHandler()).propagate = False
    sender = pool.with_options(isolation=isolation)
    job = sender.submit(Says())
    job.result()
    assert job.log.splitlines() == [
        "DEBUG said by spoken",
        "DEBUG said by spoken.below",
        "DEBUG said by spoken.filed",
        "SAID BY SHOUTED!",
        "said by filed",
    ]
    for name in ("spoken", "spoken.filed", "shouted", "filed"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).setLevel(logging.NOTSET)
    job = sender.submit(Says())
    job.result()
    assert job.log == ""


@pytest.mark.usefixtures("settled")
def test_settings_are_plain_data():
    """They go through any pipe as JSON, and come out the same; what JSON can't say is left out."""
    for change in SETTINGS.keys() - OF_SLOW.keys():
        change()
    np.set_printoptions(formatter={"float": lambda number: f"<{number}>" if HUGE else ""})
    lock = threading.Lock()
    pd.options.display.float_format = lambda number: f"<{number}>" if lock else ""
    captured = process_settings.capture()
    assert json.loads(json.dumps(captured)) == captured
    assert "display.float_format" not in captured["pandas"]
    assert "formatter" not in captured["numpy"]["printing"]


@pytest.mark.usefixtures("settled")
def test_a_function_that_another_user_has_signed_is_not_loaded(key_file):
    """As with files: a setting that is code comes from who has the key, or stays what it is."""
    pd.options.display.float_format = lambda number: f"<{number}>"
    captured = process_settings.capture()
    pd.options.display.float_format = None
    key_file.write_bytes(b"of another user, as long as it must be")
    process_settings.apply({"pandas": captured["pandas"]})
    assert pd.options.display.float_format is None


def test_only_what_is_loaded_is_asked():
    """To take the settings imports nothing, and a module that only has a library's name costs nothing."""
    script = """
        import sys, types
        sys.modules["numpy"] = types.ModuleType("numpy")
        sys.modules["pandas"] = types.ModuleType("pandas")
        from jobcontainer.worker import process_settings
        before = set(sys.modules)
        captured = process_settings.capture()
        print(set(sys.modules) - before, sorted(set(captured) - {"decimal", "locale", "socket"}))
        process_settings.apply(captured | {"sklearn": {"no such": 1}, "unknown": 2})
        print(set(sys.modules) - before)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    said, last = done.stdout.splitlines()
    assert said == "set() ['logging', 'sys', 'warnings']"
    assert last == "set()"
    assert done.stderr == ""


@pytest.mark.usefixtures("settled")
def test_of_matplotlib_only_what_differs_from_its_defaults_is_taken():
    """A parameter that is set to its default is none; nor is the backend, which belongs to a place."""
    mpl.rcdefaults()
    mpl.rcParams["lines.linewidth"] = mpl.rcParamsDefault["lines.linewidth"]
    assert "matplotlib" not in process_settings.capture()
    set_matplotlib()
    taken = process_settings.capture()["matplotlib"]
    assert taken.keys() == {"lines.linewidth", "axes.prop_cycle", "legend.loc"}
