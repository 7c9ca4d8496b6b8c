"""Several modules of one kind as one module, its tensors stacked along a leading run axis.

``torch.vmap`` maps the layers of a model over the runs. It has no rule for ``torch.nn.LSTM``, so a
loop over time stands in for it, which a GPU records as a CUDA graph.
"""

import copy
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.func import functional_call, stack_module_state, vmap

Tensors = tuple[Tensor, ...]


class LSTMLoop(Function):
    """One LSTM layer a run, as a loop over time of batched matrix products.

    Forwards, the gates of all steps are one matrix product and the loop adds the hidden state's
    part. Backwards, everything that depends on no other step is computed for all steps together.
    The gates are ordered input, forget, output, cell, so that three of them are one sigmoid.
    """

    @staticmethod
    def forward(
        rows: Tensor, from_rows: Tensor, from_hidden: Tensor, bias: Tensor, mapped: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map rows (R, T, N, I) to hidden states (R, T, N, H); the rest is for `backward`.

        ``from_rows`` is (R, I, 4 H), ``from_hidden`` (R, H, 4 H), ``bias`` (R, 4 H); ``mapped`` is
        the function that `vmap` calls with the tensors of all runs.
        """
        runs, steps, images, _ = rows.shape
        size = from_hidden.shape[1]
        gates = torch.baddbmm(bias.unsqueeze(1), rows.flatten(1, 2), from_rows)
        gates = gates.view(runs, steps, images, 4 * size)
        hidden, cells, squashed = (rows.new_empty(runs, steps, images, size) for _ in range(3))
        for step in range(steps):
            here = gates[:, step]
            if step > 0:
                here.baddbmm_(hidden[:, step - 1], from_hidden)
            here[..., : 3 * size].sigmoid_()
            here[..., 3 * size :].tanh_()
            enter, forget, leave, new = here.chunk(4, dim=-1)
            cell = torch.mul(enter, new, out=cells[:, step])
            if step > 0:
                cell.addcmul_(forget, cells[:, step - 1])
            torch.tanh(cell, out=squashed[:, step])
            torch.mul(leave, squashed[:, step], out=hidden[:, step])
        return hidden, gates, cells, squashed

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        """Save the tensors for `backward`."""
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs[:3], *output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients in all arguments of `forward`."""
        rows, from_rows, from_hidden, hidden, gates, cells, squashed = ctx.saved_tensors
        steps, size = rows.shape[1], from_hidden.shape[1]
        enter, forget, leave, new = gates.chunk(4, dim=-1)
        slopes = torch.empty_like(gates)  # derivatives of the gates, times their factors
        sigmoids = gates[..., : 3 * size]
        torch.addcmul(sigmoids, sigmoids, sigmoids, value=-1, out=slopes[..., : 3 * size])
        d_enter, d_forget, d_leave, d_new = slopes.chunk(4, dim=-1)
        d_enter.mul_(new)
        d_forget[:, 1:].mul_(cells[:, :-1])
        d_forget[:, 0].zero_()
        d_leave.mul_(squashed)
        torch.mul(new, new, out=d_new).neg_().add_(1).mul_(enter)
        d_cell = torch.addcmul(leave, leave * squashed, squashed, value=-1)

        to_cell = torch.zeros_like(cells[:, 0])
        for step in range(steps - 1, -1, -1):
            to_hidden = grad[:, step]
            if step < steps - 1:
                to_hidden = torch.baddbmm(to_hidden, slopes[:, step + 1], from_hidden.mT)
            to_cell.addcmul_(to_hidden, d_cell[:, step])
            d_leave[:, step].mul_(to_hidden)
            here = slopes[:, step].view(*to_cell.shape[:2], 4, size)
            here[..., :2, :].mul_(to_cell.unsqueeze(-2))
            here[..., 3, :].mul_(to_cell)
            to_cell.mul_(forget[:, step])
        to_gates = slopes.flatten(1, 2)
        before = torch.cat([torch.zeros_like(hidden[:, :1]), hidden[:, :-1]], dim=1)
        to_input = (to_gates @ from_rows.mT).view_as(rows) if ctx.needs_input_grad[0] else None
        to_weights = (inputs.flatten(1, 2).mT @ to_gates for inputs in (rows, before))
        return to_input, *to_weights, to_gates.sum(dim=1), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensors, Any]:
        """Treat the mapped dimension as more runs."""
        *tensors, mapped = inputs
        moved = (t.movedim(d, 0).flatten(0, 1) for t, d in zip(tensors, in_dims, strict=False))
        outputs = mapped(*moved)
        split = tuple(output.unflatten(0, (info.batch_size, -1)) for output in outputs)
        return split, (0,) * len(split)


def loop(*tensors: Tensor) -> Any:
    """Apply `LSTMLoop` to tensors that are not mapped."""
    return LSTMLoop.apply(*tensors, loop)


class MappableLSTM(nn.Module):
    """Stands in for a ``torch.nn.LSTM`` where ``torch.vmap`` must map it; has its parameters."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        special = lstm.num_layers > 1 or lstm.bidirectional or lstm.proj_size
        if special or not lstm.bias or not lstm.batch_first:
            raise NotImplementedError("an LSTM of another kind than one layer, one direction")
        self.graphs: dict[Any, Any] = {}
        for name, parameter in lstm.named_parameters():
            self.register_parameter(name, parameter)

    def replay(self, *tensors: Tensor) -> Any:
        """Apply `loop`, which a GPU records in training; the output holds until the next call."""
        if not (torch.is_grad_enabled() and all(tensor.is_cuda for tensor in tensors)):
            return loop(*tensors)
        shapes = tuple((tensor.shape, tensor.requires_grad) for tensor in tensors)
        if shapes not in self.graphs:
            samples = tuple(torch.zeros_like(t, requires_grad=t.requires_grad) for t in tensors)
            self.graphs[shapes] = torch.cuda.make_graphed_callables(loop, samples)
        return self.graphs[shapes](*tensors)

    def forward(self, rows: Tensor) -> tuple[Tensor, None]:
        """Map (N, T, I) to hidden states (N, T, H)."""

        def ordered(numbers: Tensor) -> Tensor:
            enter, forget, new, leave = numbers.chunk(4)
            return torch.cat([enter, forget, leave, new]).unsqueeze(0)

        by_step = rows.transpose(0, 1).unsqueeze(0)
        from_rows, from_hidden, *biases = map(ordered, self.parameters())
        hidden, *_ = LSTMLoop.apply(by_step, from_rows.mT, from_hidden.mT, sum(biases), self.replay)
        return hidden.squeeze(0).transpose(0, 1), None


class Stacked(nn.Module):
    """R modules that differ in their tensors only, each applied to inputs of its own.

    ``sizes`` are the runs in each part of the stack, R in all. A part has parameters of its own, so
    that an optimizer can treat the parts differently; the first has the buffers of all runs.
    """

    def __init__(self, modules: Sequence[nn.Module], sizes: Sequence[int]) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        self.places = [(part, at) for part, size in enumerate(sizes) for at in range(size)]
        rest = iter(modules)
        _, buffers = stack_module_state(list(modules))
        for size in sizes:
            members = [*islice(rest, size)]
            part = copy.deepcopy(members[0])
            for name, module in list(part.named_modules()):
                if type(module) is nn.LSTM:
                    part.set_submodule(name, MappableLSTM(module))
            parameters, _ = stack_module_state(members)
            for name, tensor in [*part.named_parameters(), *part.named_buffers()]:
                tensor.data = (parameters | buffers)[name].detach().contiguous()
            self.parts.append(part)
            buffers = {name: tensor[:0] for name, tensor in buffers.items()}

    def tensors(self, number: int) -> dict[str, Tensor]:
        """Return the tensors of one module, by name; to write them changes the stack."""
        part, at = self.places[number]
        buffers = dict(self.parts[0].named_buffers())
        return {
            name: buffers[name][number] if name in buffers else tensor[at]
            for name, tensor in self.parts[part].state_dict().items()
        }

    def forward(self, *inputs: Tensor) -> Tensor:
        """Map inputs (R, ...) to outputs (R, ...), run by run; keep what that does to buffers."""
        states: list[dict[str, Tensor]] = [dict(part.named_parameters()) for part in self.parts]
        stacked, buffers = states[0], dict(self.parts[0].named_buffers())
        if len(states) > 1:
            stacked = {name: torch.cat([state[name] for state in states]) for name in stacked}

        def call(tensors: dict[str, Tensor], inputs: Tensors) -> tuple[Tensor, dict[str, Tensor]]:
            given = tensors.copy()
            output = functional_call(self.parts[0], tensors, inputs)
            return output, {
                name: tensors[name] for name in buffers if tensors[name] is not given[name]
            }

        outputs, replaced = vmap(call)(stacked | buffers, inputs)
        for name, tensor in replaced.items():  # the others are changed in place
            buffers[name].copy_(tensor.detach())
        return outputs
