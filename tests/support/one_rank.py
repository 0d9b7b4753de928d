"""What each of several processes does in tests/training/test_distributed.py: `torchrun … one_rank.py FOLDER`."""

import sys
from pathlib import Path

import torch

from taichi_nerf.training.checkpoint import save_checkpoint
from taichi_nerf.training.distributed import world

torch.set_num_threads(1)
with world("cpu") as ranks:
    seen = {"rank": ranks.rank, "size": ranks.size, "main": ranks.is_main, "share": list(ranks.share(7))}
    r = ranks.rank

    module = torch.nn.BatchNorm1d(3).double()
    module.register_buffer("seen", torch.tensor([r == 0, True]))
    module.register_buffer("narrow", torch.full((4, 2), r + 0.5, dtype=torch.bfloat16).t())
    module.register_buffer("empty", torch.zeros(0))
    torch.nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(r))
    seen["module before"] = {k: v.clone() for k, v in module.state_dict().items()}
    ranks.broadcast(module)
    seen["module"] = module.state_dict()

    grid = torch.arange(6.0).reshape(2, 3).t() * (r + 1)
    seen["sums"] = [ranks.sum_over_ranks(grid), ranks.sum_over_ranks(torch.tensor(r + 1))]
    seen["grid"] = grid
    seen["any"] = [ranks.any_rank(False), ranks.any_rank(r == 1), ranks.any_rank(True)]
    ranks.barrier()

    both, one, none, frozen = (torch.ones(3, 2, requires_grad=wanted) for wanted in (True, True, True, False))
    double, scalar = torch.ones(2, dtype=torch.float64, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    half = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    both.grad = torch.full((2, 3), 2.0 + 4 * r).t()
    if r == 1:
        one.grad = torch.full((3, 2), 5.0)
    double.grad, scalar.grad = torch.full((2,), 1 / 3 + r, dtype=torch.float64), torch.tensor(1.0 - r)
    half.grad = torch.full((3,), r + 1.0).bfloat16()
    ranks.average_gradients([both, one, none, frozen, double, scalar, half])
    seen["gradients"] = [p.grad for p in (both, one, none, frozen, double, scalar, half)]

    torch.manual_seed(7 + r)
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).double()
    ranks.broadcast(model)
    if r == 0:
        seen["first"] = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    data = torch.randn(5, 8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for batch in data:
        optimizer.zero_grad()
        model(batch[ranks.share(8)]).square().mean().backward()
        ranks.average_gradients(model.parameters())
        optimizer.step()
    seen["data"], seen["last"] = data, model.state_dict()
save_checkpoint(Path(sys.argv[1]) / str(r), seen, {})
