"""Two processes train as one. Each runs tests/support/one_rank.py and leaves what it saw in a file, for these tests to judge."""

import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
import torch

from taichi_nerf.training.checkpoint import load_checkpoint
from taichi_nerf.training.distributed import World, own_gpu, world

SIZE = 2
ONE_RANK = Path(__file__).resolve().parents[1] / "support" / "one_rank.py"


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What each rank saw."""
    folder = tmp_path_factory.mktemp("ranks")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(SIZE)]
    done = subprocess.run([*torchrun, str(ONE_RANK), str(folder)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return [load_checkpoint(folder / str(rank))[0] for rank in range(SIZE)]


def test_each_process_knows_its_place_and_every_item_is_of_one(seen):
    assert [(s["rank"], s["size"], s["main"]) for s in seen] == [(0, 2, True), (1, 2, False)]
    assert [s["share"] for s in seen] == [[0, 2, 4, 6], [1, 3, 5]]
    for n, size in ((0, 3), (2, 3), (10, 3), (5, 1)):
        shares = [list(World(rank, size).share(n)) for rank in range(size)]
        assert sorted(chain(*shares)) == list(range(n))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_module_of_the_main_process_goes_to_all_bit_for_bit(seen):
    assert not torch.equal(seen[0]["module before"]["weight"], seen[1]["module before"]["weight"])
    for rank in seen:
        assert rank["module"].keys() == seen[0]["module before"].keys()
        assert all(torch.equal(rank["module"][name], tensor) for name, tensor in seen[0]["module before"].items())


def test_sums_are_the_same_on_all_and_leave_the_summands(seen):
    for rank in seen:
        assert torch.equal(rank["sums"][0], seen[0]["grid"] + seen[1]["grid"])
        assert torch.equal(rank["sums"][1], torch.tensor(3))
        assert rank["any"] == [False, True, True]
    assert torch.equal(seen[1]["grid"], torch.arange(6.0).reshape(2, 3).t() * 2)


def test_gradients_are_averaged_and_a_missing_one_counts_as_zero(seen):
    for rank in seen:
        both, one, none, frozen, double, scalar, half = rank["gradients"]
        assert torch.equal(both, torch.full((3, 2), 4.0))
        assert torch.equal(one, torch.full((3, 2), 2.5))
        assert none is None
        assert frozen is None
        assert torch.allclose(double, torch.tensor([5 / 6, 5 / 6], dtype=torch.float64), rtol=1e-15)
        assert (double.dtype, half.dtype) == (torch.float64, torch.bfloat16)
        assert torch.equal(scalar, torch.tensor(0.5))
        assert half.tolist() == [1.5] * 3


def test_two_processes_with_half_a_batch_each_train_as_one_with_all(seen):
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).double()
    model.load_state_dict(seen[0]["first"])
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for batch in seen[0]["data"]:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
    for name, tensor in model.state_dict().items():
        assert torch.equal(seen[0]["last"][name], seen[1]["last"][name])
        assert torch.allclose(seen[0]["last"][name], tensor, rtol=1e-10, atol=1e-12)


def test_one_process_makes_no_group_and_changes_nothing():
    with world("cpu", {}) as ranks:
        assert (ranks.rank, ranks.size, ranks.is_main, list(ranks.share(3))) == (0, 1, True, [0, 1, 2])
        assert not torch.distributed.is_initialized()
        parameter = torch.ones(2, requires_grad=True)
        ranks.average_gradients([parameter])
        assert parameter.grad is None
        ranks.broadcast(torch.nn.Linear(2, 2))
        ranks.barrier()
        summand = torch.ones(2)
        assert torch.equal(ranks.sum_over_ranks(summand), summand)
        assert ranks.sum_over_ranks(summand) is not summand


@pytest.mark.parametrize(
    ("shown", "local_rank", "own"),
    [(None, 1, "1"), ("4,7", 1, "7"), ("4,7", 2, None), ("", 0, None), ("GPU-ab,GPU-cd", 0, "GPU-ab")],
)
def test_each_process_sees_one_gpu_of_those_shown_and_no_other(shown, local_rank, own, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown or "")
    if shown is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    if own is None:
        with pytest.raises(ValueError, match=f"rank {local_rank} has no GPU"):
            own_gpu(local_rank)
    else:
        assert own_gpu(local_rank) == torch.device("cuda", 0)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == own
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(RuntimeError, match="before anything uses the GPU"):
        own_gpu(0)


def test_who_waits_for_others_that_never_come_can_be_ended():
    """Commands have handlers of their own, which Python runs only after the wait."""
    code = (
        "import signal, sys\n"
        "from taichi_nerf.training.distributed import world\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "print('waits', flush=True)\n"
        "with world(): pass"
    )
    place = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # where nobody listens
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **place}, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"waits\n"
        time.sleep(0.5)
        process.terminate()
        assert process.wait(timeout=20) in (-signal.SIGTERM, 143)
    finally:
        process.kill()
        process.communicate()


def test_an_environment_that_makes_no_sense_is_told():
    for environment, told in (
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two: expected a whole number; torchrun sets it"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2 does not fit WORLD_SIZE=2; torchrun sets both"),
    ):
        with pytest.raises(ValueError, match=told), world("cpu", environment):
            pytest.fail("went on")
