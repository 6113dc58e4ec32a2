"""Models of torch mean in a job what they mean in the notebook; real torch, where it is installed."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

HELPER = """
import torch
class Block(torch.nn.Module):
    def __init__(self, size, scale=torch.tensor(2.0)):
        super().__init__()
        self.linear, self.scale = torch.nn.Linear(size, size), scale
        self.register_buffer("seen", torch.zeros(size))
    def forward(self, rows): return self.linear(rows) * self.scale
"""

CELL = """
import torch, torch_blocks

class Net(torch.nn.Module):
    def __init__(self, size=300):
        super().__init__()
        self.first, self.last = torch.nn.Linear(size, size, bias=False), torch.nn.Linear(size, size, bias=False)
        self.last.weight = self.first.weight
        self.block = torch_blocks.Block(size)
    def forward(self, rows, factor=torch.tensor([1.0, 2.0]).sum()):
        return self.last(self.block(self.first(rows))) * factor

class Squares(torch.utils.data.Dataset):
    def __init__(self, count): self.rows = torch.arange(count).float()
    def __len__(self): return len(self.rows)
    def __getitem__(self, number): return self.rows[number] ** 2, {"number": number}

def collate(items): return torch.stack([row for row, _ in items]), [more["number"] for _, more in items]
def seed(number): torch.manual_seed(number)

class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x
    @staticmethod
    def backward(ctx, gradient): return 2 * ctx.saved_tensors[0] * gradient

class Process:
    def __init__(self, work, *things): self.work, self.things = work, things
    def run(self): return self.work(*self.things)
"""


@pytest.fixture
def names(cell, tmp_path, monkeypatch):
    """The names of a notebook that has a model, with a module beside it."""
    (tmp_path / "torch_blocks.py").write_text(HELPER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))  # which an optimizer makes
    importlib.invalidate_caches()
    yield cell(CELL)
    sys.modules.pop("torch_blocks", None)


@pytest.fixture
def in_job(cell, names, pool):
    """Run ``work()`` of a cell in a job."""
    return lambda source, *things: pool.submit(names["Process"](cell(source)["work"], *things)).result(100)


def test_a_model_is_the_same_there_and_back(names, in_job):
    """Tied weights are one, as are those that the optimizer and its schedule hold; tensors as defaults, buffers."""
    model = names["Net"]()
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    rows = torch.rand(2, 300)
    model(rows).sum().backward()
    optimizer.step()
    found, output, there = in_job(
        """
        def work(model, optimizer, schedule, rows):
            held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
            output = model(rows).detach()
            before = [parameter.clone() for parameter in model.parameters()]
            optimizer.zero_grad()
            model(rows).sum().backward()
            optimizer.step()
            return {
                "tied": model.first.weight is model.last.weight,
                "held": held == {id(parameter) for parameter in model.parameters()},
                "state": len(optimizer.state),
                "schedule": schedule.optimizer is optimizer,
                "trained": all(bool((a != b).any()) for a, b in zip(before, model.parameters())),
                "classes": (type(model) is Net, type(model.block) is torch_blocks.Block),
                "grad": [parameter.requires_grad for parameter in model.parameters()],
            }, output, (model, optimizer)
        """,
        model,
        optimizer,
        schedule,
        rows,
    )
    assert found == {
        "tied": True,
        "held": True,
        "state": 3,
        "schedule": True,
        "trained": True,
        "classes": (True, True),
        "grad": [True] * 3,
    }
    assert torch.equal(output, model(rows))
    trained, its_optimizer = there
    assert type(trained) is names["Net"]
    assert trained.first.weight is trained.last.weight
    assert type(trained.block) is sys.modules["torch_blocks"].Block
    assert {id(one) for one in its_optimizer.param_groups[0]["params"]} == {id(one) for one in trained.parameters()}


def test_torch_save_in_a_job_opens_in_the_notebook_and_back(names, in_job, tmp_path):
    """A whole model, one among other things, its weights alone; and a file of the notebook opens in a job."""
    torch.save(names["Net"](), tmp_path / "here.pt")
    same = in_job(
        """
        def work(folder):
            model = torch.load(folder / "here.pt", weights_only=False)
            torch.save(model, folder / "model.pt")
            torch.save({"model": model, "kind": Net}, folder / "more.pt")
            torch.save(model.state_dict(), folder / "weights.pt")
            return type(model) is Net, type(model.block) is torch_blocks.Block, model.first.weight is model.last.weight
        """,
        tmp_path,
    )
    assert same == (True, True, True)
    model, more = (torch.load(tmp_path / name, weights_only=False) for name in ("model.pt", "more.pt"))
    assert {type(model), type(more["model"]), more["kind"]} == {names["Net"]}
    assert model.first.weight is model.last.weight
    assert model.load_state_dict(torch.load(tmp_path / "weights.pt")).missing_keys == []


@pytest.mark.slow
@pytest.mark.parametrize("method", [None, "spawn", "forkserver"])
def test_a_data_loader_has_its_workers(in_job, method):
    """With a dataset, a collate function and a start of the notebook; they may live from epoch to epoch."""
    found = in_job(
        """
        def work(method):
            loader = torch.utils.data.DataLoader(
                Squares(6), 3, num_workers=2, collate_fn=collate, worker_init_fn=seed, multiprocessing_context=method,
                persistent_workers=True,
            )
            return [[(rows.tolist(), numbers) for rows, numbers in loader] for _ in range(2)]
        """,
        method,
    )
    assert found == [[([0.0, 1.0, 4.0], [0, 1, 2]), ([9.0, 16.0, 25.0], [3, 4, 5])]] * 2


def test_what_a_tensor_is_arrives(in_job):
    """Whether it needs gradients, is a parameter, a leaf; functions of autograd and hooks work; types and devices."""
    things = (
        torch.rand(100_000, requires_grad=True),
        torch.nn.Parameter(torch.rand(100_000), requires_grad=False),
        torch.nn.Parameter(torch.rand(3)),
        torch.float16,
        torch.device("cpu"),
        torch.Size([1, 2]),
    )
    source = """
        def work(*things):
            x = torch.tensor(3.0, requires_grad=True)
            Square.apply(x).backward()
            called, layer = [], torch.nn.Linear(2, 2)
            layer.register_forward_hook(lambda *_: called.append(1))
            layer(torch.ones(1, 2))
            tensors = [(type(one).__name__, one.requires_grad, one.is_leaf, one.tolist()) for one in things[:3]]
            return float(x.grad), called, tensors, things[3:], torch.is_grad_enabled(), torch.get_default_dtype()
    """
    tensors = [(type(one).__name__, one.requires_grad, one.is_leaf, one.tolist()) for one in things[:3]]
    assert in_job(source, *things) == (6.0, [1], tensors, things[3:], True, torch.float32)


def test_each_job_draws_other_numbers(in_job):
    """With torch in the keeper or not."""
    source = "def work(): return torch.rand(4).tolist()"
    assert in_job(source) != in_job(source)


LOADER = """
import sys, time, torch
from jobcontainer import JobPool
class Waits:
    def run(self): time.sleep(1000)
class Numbers(torch.utils.data.Dataset):
    def __len__(self): return 4
    def __getitem__(self, number): return number
pool = JobPool(1, store=sys.argv[1])
job = pool.submit(Waits())
while job.started is None:
    pass
lasting = sys.argv[2] == "True"
loader = torch.utils.data.DataLoader(
    Numbers(), 2, num_workers=2, multiprocessing_context="fork", persistent_workers=lasting)
begun = time.monotonic()
print(*[[int(n) for batch in loader for n in batch] for _ in range(2)])
del loader
print(time.monotonic() - begun < 4, job.done(), type(job.folder.last_turn()).__name__)
job.cancel()
pool.shutdown()
"""


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [False, True])
def test_a_data_loader_of_the_notebook_is_done_while_a_job_runs(tmp_path, lasting):
    """Its forked workers end at once, whether they live for one epoch or for several, and the job goes on."""
    command = [sys.executable, "-c", LOADER, str(tmp_path / "store"), str(lasting)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "[0, 1, 2, 3] [0, 1, 2, 3]\nTrue False Started\n", done.stderr
