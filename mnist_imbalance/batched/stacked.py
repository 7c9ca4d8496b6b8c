"""Several modules of one kind as one module, its tensors stacked along a leading run axis."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from mnist_imbalance.batched.lstm import MappableLSTM


def mappable(module: nn.Module) -> nn.Module:
    """Copy a module, with LSTMs that ``torch.vmap`` can map."""
    copied = copy.deepcopy(module)
    for name, part in list(copied.named_modules()):
        if type(part) is nn.LSTM:
            copied.set_submodule(name, MappableLSTM(part))
    return copied


class Stacked(nn.Module):
    """R modules that differ in their tensors only, each applied to inputs of its own.

    Args:
        modules: R of them. They are copied.
        sizes: The stack's parts, runs each, whose parameters are tensors of their own, so that an
            optimizer can treat them differently; they sum to R.
    """

    def __init__(self, modules: Sequence[nn.Module], sizes: Sequence[int]) -> None:
        super().__init__()
        template = mappable(modules[0]).to("meta")
        self.template = [template]  # in a list: its tensors are none of this module's
        self.parts = nn.ModuleList()
        begin = 0
        for size in sizes:
            part = mappable(modules[begin])
            parameters, buffers = stack_module_state(list(modules[begin : begin + size]))
            for name, tensor in parameters.items():
                owner, _, own_name = name.rpartition(".")
                setattr(
                    part.get_submodule(owner), own_name, nn.Parameter(tensor.detach().contiguous())
                )
            for name, tensor in buffers.items():
                owner, _, own_name = name.rpartition(".")
                setattr(part.get_submodule(owner), own_name, tensor)
            self.parts.append(part)
            begin += size

    def tensors(self) -> dict[str, Tensor]:
        """Return all parameters and buffers by name, (R, ...) each."""
        states = [dict([*part.named_parameters(), *part.named_buffers()]) for part in self.parts]
        if len(states) == 1:
            return states[0]
        return {name: torch.cat([state[name] for state in states]) for name in states[0]}

    def train(self, mode: bool = True) -> "Stacked":
        """Switch between training and evaluation, the template too."""
        self.template[0].train(mode)
        return super().train(mode)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Map inputs (R, ...) to outputs (R, ...), run by run."""
        [template] = self.template

        def one(tensors: dict[str, Tensor], *inputs: Tensor) -> Tensor:
            output: Tensor = functional_call(template, tensors, inputs)
            return output

        outputs: Tensor = vmap(one)(self.tensors(), *inputs)
        return outputs
