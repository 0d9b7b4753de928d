"""torch's Adam without the compiler.

torch wraps an optimiser's methods for `torch.compile`, and the first call of any of them imports torch._dynamo: 1.5 to 2.4 s of
each training's start and 70 MB, for what is never compiled here. The methods below are torch's own, taken out of their wraps.
"""

from inspect import unwrap

import torch


class Adam(torch.optim.Adam):
    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    state_dict = unwrap(torch.optim.Adam.state_dict)
    load_state_dict = unwrap(torch.optim.Adam.load_state_dict)
    zero_grad = unwrap(torch.optim.Adam.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.Adam.step))
