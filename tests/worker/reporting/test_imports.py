"""Hooks on imports: run when user code imports, never in its way, and gone with the job."""

from __future__ import annotations

import importlib
import os
import sys
import zipfile

import pytest

from jobcontainer.worker.reporting.import_hooks import Hooks


@pytest.fixture
def hooks():
    hooks = Hooks()
    yield hooks
    hooks.undo()


@pytest.fixture(params=["folder", "zip file"])
def package(request, tmp_path, monkeypatch):
    """A package ``hooked_package`` with two modules, on disk or in an archive."""
    files = {
        "__init__.py": "",
        "one.py": "from hooked_package import two\nvalue = two.value + 1\n",
        "two.py": "value = 1\n",
    }
    if request.param == "zip file":
        place = tmp_path / "packed.zip"
        with zipfile.ZipFile(place, "w") as archive:
            for name, text in files.items():
                archive.writestr(f"hooked_package/{name}", text)
    else:
        place = tmp_path
        (place / "hooked_package").mkdir()
        for name, text in files.items():
            (place / "hooked_package" / name).write_text(text)
    monkeypatch.syspath_prepend(place)
    yield "hooked_package"
    for name in [name for name in sys.modules if name.startswith("hooked_package")]:
        del sys.modules[name]


def test_a_module_is_patched_right_after_its_code_ran(hooks, package):
    """What imports it next sees it patched, also while the hooked modules import each other."""
    seen = []
    hooks.when_imported(f"{package}.one", lambda module: seen.append(("one", module.value)))
    hooks.when_imported(f"{package}.two", lambda module: hooks.replace(module, "value", 10))
    one = importlib.import_module(f"{package}.one")
    assert one.value == 11
    assert seen == [("one", 11)]
    assert importlib.reload(one).value == 11
    assert seen == [("one", 11)] * 2
    assert "exec_module" not in vars(one.__loader__)


def test_a_module_that_is_there_is_patched_at_once(hooks, package):
    """A library that was loaded before the job is hooked as well."""
    module = importlib.import_module(f"{package}.two")
    hooks.when_imported(f"{package}.two", lambda module: hooks.replace(module, "value", 10))
    assert module.value == 10


def test_everything_is_put_back(package):
    """After the job no finder, no attribute and no variable of ours is left, whatever user code did in between."""
    hooks, finders = Hooks(), list(sys.meta_path)
    module = importlib.import_module(f"{package}.two")
    hooks.replace(module, "value", 10)
    hooks.replace(module, "value", 20)
    hooks.replace(module, "added", 1)
    hooks.replace(module, "deleted", 1)
    del module.deleted
    hooks.when_imported(f"{package}.one", lambda module: hooks.replace(module, "value", 30))
    hooks.undo()
    assert module.value == 1
    assert not hasattr(module, "added")
    assert sys.meta_path == finders
    assert importlib.import_module(f"{package}.one").value == 2


def test_environment_variables_are_put_back(hooks, monkeypatch):
    """One that was there has its value again, one that was not is gone."""
    monkeypatch.setenv("HOOKED", "before")
    monkeypatch.delenv("HOOKED_NEW", raising=False)
    hooks.set_environment("HOOKED", "during")
    hooks.set_environment("HOOKED_NEW", "during")
    hooks.undo()
    assert os.environ["HOOKED"] == "before"
    assert "HOOKED_NEW" not in os.environ


def test_a_hook_that_fails_does_not_fail_the_import(hooks, package, capsys):
    """A library of a version that a hook does not fit stays usable; the log says what went wrong."""
    hooks.when_imported(f"{package}.two", lambda module: module.no_such_name)
    assert importlib.import_module(f"{package}.two").value == 1
    assert "no_such_name" in capsys.readouterr().err


def test_modules_that_are_missing_or_broken_fail_as_ever(hooks, package, tmp_path):
    """An import error is the user's own, with or without a hook."""
    for name in ("no_such_module_anywhere", f"{package}.missing"):
        hooks.when_imported(name, lambda _: None)
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
    (tmp_path / "broken_module.py").write_text("1 / 0")
    hooks.when_imported("broken_module", lambda _: None)
    sys.path.insert(0, str(tmp_path))
    try:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                importlib.import_module("broken_module")
    finally:
        sys.path.remove(str(tmp_path))
