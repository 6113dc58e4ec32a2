"""What notebook/ipython_internals.py relies on is there in the installed IPython and ipykernel, and can be missing."""

from __future__ import annotations

import ast
import json
from types import SimpleNamespace

import pytest
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.interactiveshell import ExecutionResult
from IPython.core.magic import MagicsManager

from jobcontainer.notebook import ipython_internals


class Broken:
    def __repr__(self):
        raise RuntimeError("a broken form")


class Undecorated:
    def __call__(self, value):
        return value


def shell_like(**attributes):
    """An object with some attributes of a shell."""
    return SimpleNamespace(**attributes)


def test_a_terminal_is_no_kernel():
    """Without the attributes of ipykernel's display publisher there is text instead of cards."""
    assert not ipython_internals.in_kernel(shell_like(display_pub=object(), get_parent=dict))
    publisher = SimpleNamespace(session=None, pub_socket=None, topic=b"")
    assert not ipython_internals.in_kernel(shell_like(display_pub=publisher))
    assert ipython_internals.in_kernel(shell_like(display_pub=publisher, get_parent=dict))


def test_a_request_of_a_front_end_that_sends_little_can_be_answered():
    """A cell id and input are optional in the protocol of Jupyter."""
    sent = []
    session = SimpleNamespace(send=lambda *message, **about: sent.append((*message, about)))
    publisher = SimpleNamespace(session=session, pub_socket=None, topic=b"topic")
    parent = {"header": {"msg_id": "7"}}
    request = ipython_internals.CellRequest(shell_like(display_pub=publisher, get_parent=lambda: parent))
    request.answer("display_data", {"data": {}})
    assert (request.cell_id, request.request_id, request.headless) == ("", "7", False)
    assert sent == [(None, "display_data", {"data": {}}, {"parent": parent, "ident": b"topic"})]


def test_the_shell_has_the_attributes_that_are_used():
    """A class that lost one of these would make the fallbacks take over."""
    assert "exec_result" in DisplayHook.class_trait_names()
    assert all(hasattr(ExecutionResult(None), name) for name in ("execution_count", "error_before_exec"))
    assert all(hasattr(CachingCompiler, name) for name in ("cache", "ast_parse", "extra_flags"))
    assert {"magics", "registry"} <= set(MagicsManager.class_trait_names())


def test_without_a_running_cell_a_syntax_error_is_raised():
    """A program that calls the magic gets the exception."""
    error = SyntaxError("invalid syntax")
    for displayhook in (SimpleNamespace(exec_result=None), SimpleNamespace()):
        with pytest.raises(SyntaxError, match="invalid syntax"):
            ipython_internals.fail_cell(shell_like(displayhook=displayhook), error)


def test_without_a_running_cell_its_number_is_the_count_of_the_shell():
    """The lines of the cell are kept for tracebacks under that number."""
    compiler = CachingCompiler()
    for displayhook in (SimpleNamespace(exec_result=None), SimpleNamespace()):
        shell = shell_like(
            displayhook=displayhook, execution_count=17, compile=compiler, transform_ast=lambda tree: tree
        )
        tree, file = ipython_internals.parse_cell(shell, "x = 1\n", "x = 1")
        assert ast.unparse(tree) == "x = 1"
        assert compiler.format_code_name(file) == ("Cell", "In[17]")


@pytest.mark.parametrize(("line", "awaited"), [("await x", True), ("x", False)])
def test_the_call_of_a_cell_magic_is_awaited_where_its_cell_awaits(line, awaited):
    """The text of the call is what IPython's own transformer writes."""
    lines = TransformerManager().transform_cell(f"%%jobcontainer --wait\n{line}\n").splitlines(keepends=True)
    shell = shell_like(autoawait=True, transform_cell=str, should_run_async=lambda source, **_: "await" in source)
    changed = ipython_internals.await_cell_magic(shell, "jobcontainer", lines)
    assert changed == ([f"await {lines[0]}", *lines[1:]] if awaited else lines)
    assert ipython_internals.await_cell_magic(shell, "time", lines) == lines


def test_a_comm_without_the_hook_is_left_alone():
    """An ipykernel before 7.4 has none."""
    comm = SimpleNamespace()
    ipython_internals.receive_while_busy(SimpleNamespace(comm=comm))
    assert vars(comm) == {}


def test_magics_that_are_not_registered_are_removed_without_an_error():
    """Removing what is there is tested with the magics."""
    manager = SimpleNamespace(magics={"line": {}}, registry={})
    shell = shell_like(magics_manager=manager, configurables=[])
    ipython_internals.remove_magics(shell, object(), [("line", "jobs"), ("cell", "jobcontainer")])
    assert (manager.magics, manager.registry) == ({"line": {}}, {})


@pytest.mark.slow
def test_a_kernel_has_what_a_card_needs(kernel):
    """A cell's request can be answered after the cell has ended, and a widget's comm is found."""
    first = kernel.run(
        "from jobcontainer.notebook import ipython_internals\n"
        "assert ipython_internals.in_kernel(get_ipython())\n"
        "request = ipython_internals.CellRequest(get_ipython())"
    )
    assert first["status"] == "ok"
    content = json.dumps({"data": {"text/plain": "later"}, "metadata": {}, "transient": {"display_id": "one"}})
    second = kernel.run(
        f"import threading\nsend = lambda: request.answer('display_data', {content})\n"
        "thread = threading.Thread(target=send)\nthread.start()\nthread.join()"
    )
    kernel.until(lambda: kernel.text(first["id"]) == "later")
    assert kernel.outputs(second["id"]) == []
    widget = kernel.run("import ipywidgets\nipython_internals.receive_while_busy(ipywidgets.IntSlider())")
    assert widget["status"] == "ok"
