"""An LSTM of several runs at once, which torch.nn.LSTM has no batching rule for."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

ONCE_OR_TWICE = 2  # calls that recording would not pay for


class Replayed:
    """A function of tensors whose kernels a GPU records once for tensors of a shape.

    In training it then replays them, forwards and backwards, with a single launch each, where
    launching hundreds of small ones would take longer than they do.

    Args:
        function: Maps tensors to tensors, always by the same kernels.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]) -> None:
        self.function = function
        self.seen: Counter[Any] = Counter()
        self.recorded: dict[Any, Any] = {}

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Call it; what it returns holds until the next call."""
        if not (torch.is_grad_enabled() and all(tensor.is_cuda for tensor in tensors)):
            return self.function(*tensors)
        shapes = tuple((tensor.shape, tensor.requires_grad) for tensor in tensors)
        self.seen[shapes] += 1
        if self.seen[shapes] <= ONCE_OR_TWICE:
            return self.function(*tensors)
        if shapes not in self.recorded:
            samples = tuple(
                torch.zeros_like(each, requires_grad=need)
                for each, (_, need) in zip(tensors, shapes, strict=True)
            )
            self.recorded[shapes] = torch.cuda.make_graphed_callables(self.function, samples)
        outputs: tuple[Tensor, ...] = self.recorded[shapes](*tensors)
        return outputs


class LoopedLSTM(Function):
    """A single LSTM layer a run, as a loop over time of batched matrix products.

    Forwards, the gates of all steps are one matrix product and the loop adds the hidden state's
    part. Backwards, what depends on no other step is worked out for all steps together, so that
    the loop holds a matrix product and four elementwise operations.

    The gates are ordered input, forget, output, cell, so that three of them are one sigmoid.
    """

    @staticmethod
    def forward(
        rows: Tensor,
        from_rows: Tensor,
        from_hidden: Tensor,
        bias: Tensor,
        mapped: Callable[..., tuple[Tensor, ...]],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run R layers side by side.

        Args:
            rows: (R, T, N, I), T time steps of N images.
            from_rows: (R, I, 4 H).
            from_hidden: (R, H, 4 H).
            bias: (R, 4 H).
            mapped: What `vmap` calls with the tensors of all runs.

        Returns:
            The hidden states (R, T, N, H); for the backward pass, the gates (R, T, N, 4 H), the
            cells (R, T, N, H) and their tanh.
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
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        """Keep what `backward` needs."""
        rows, from_rows, from_hidden, *_ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(rows, from_rows, from_hidden, *output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the loss in all of `forward`'s arguments."""
        rows, from_rows, from_hidden, hidden, gates, cells, squashed = ctx.saved_tensors
        steps = rows.shape[1]
        size = from_hidden.shape[1]
        enter, forget, leave, new = gates.chunk(4, dim=-1)
        slopes = torch.empty_like(gates)  # of each gate, times what it is multiplied by
        sigmoids = gates[..., : 3 * size]
        torch.addcmul(sigmoids, sigmoids, sigmoids, value=-1, out=slopes[..., : 3 * size])
        of_enter, of_forget, of_leave, of_new = slopes.chunk(4, dim=-1)
        of_enter.mul_(new)
        of_forget[:, 1:].mul_(cells[:, :-1])
        of_forget[:, 0].zero_()
        of_leave.mul_(squashed)
        torch.mul(new, new, out=of_new).neg_().add_(1).mul_(enter)
        of_cell = torch.addcmul(leave, leave * squashed, squashed, value=-1)

        to_rows = from_hidden.transpose(1, 2)
        to_cell = torch.zeros_like(cells[:, 0])
        for step in range(steps - 1, -1, -1):
            to_hidden = grad[:, step]
            if step < steps - 1:
                to_hidden = torch.baddbmm(to_hidden, slopes[:, step + 1], to_rows)
            to_cell.addcmul_(to_hidden, of_cell[:, step])
            of_leave[:, step].mul_(to_hidden)
            here = slopes[:, step].view(*to_cell.shape[:2], 4, size)
            here[..., :2, :].mul_(to_cell.unsqueeze(-2))
            here[..., 3, :].mul_(to_cell)
            to_cell.mul_(forget[:, step])
        to_gates = slopes.flatten(1, 2)
        before = torch.cat([torch.zeros_like(hidden[:, :1]), hidden[:, :-1]], dim=1)
        to_input = None
        if ctx.needs_input_grad[0]:
            to_input = torch.bmm(to_gates, from_rows.transpose(1, 2)).view_as(rows)
        return (
            to_input,
            torch.bmm(rows.flatten(1, 2).transpose(1, 2), to_gates),
            torch.bmm(before.flatten(1, 2).transpose(1, 2), to_gates),
            to_gates.sum(dim=1),
            None,
        )

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *arguments: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Take the mapped dimension for more runs."""
        *tensors, mapped = arguments
        merged = [
            argument.unsqueeze(0).expand(info.batch_size, *argument.shape)
            if place is None
            else argument.movedim(place, 0)
            for argument, place in zip(tensors, in_dims[:-1], strict=True)
        ]
        outputs = mapped(*(argument.flatten(0, 1) for argument in merged))
        split = tuple(output.unflatten(0, (info.batch_size, -1)) for output in outputs)
        return split, (0,) * len(split)


def loop(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Apply `LoopedLSTM` to tensors that are not mapped."""
    outputs: tuple[Tensor, ...] = LoopedLSTM.apply(*tensors, loop)
    return outputs


class MappableLSTM(nn.Module):
    """What ``torch.vmap`` can map in the place of a ``torch.nn.LSTM``, with the same parameters.

    Args:
        lstm: Of one layer and one direction.

    Raises:
        NotImplementedError: It has several layers or directions, or a projection.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        if lstm.num_layers > 1 or lstm.bidirectional or lstm.proj_size or not lstm.bias:
            raise NotImplementedError("an LSTM of another kind than one layer, one direction")
        self.batch_first = lstm.batch_first
        self.mapped = Replayed(loop)
        for name, parameter in lstm.named_parameters():
            self.register_parameter(name, parameter)

    def forward(self, rows: Tensor) -> tuple[Tensor, None]:
        """Map (N, T, I), or (T, N, I) without ``batch_first``, to hidden states."""
        if self.batch_first:
            rows = rows.transpose(0, 1)

        def ordered(*names: str) -> Tensor:
            summed: Tensor = sum(getattr(self, name) for name in names)
            enter, forget, new, leave = summed.chunk(4)
            return torch.cat([enter, forget, leave, new]).unsqueeze(0)

        hidden, *_ = LoopedLSTM.apply(
            rows.unsqueeze(0),
            ordered("weight_ih_l0").transpose(1, 2),
            ordered("weight_hh_l0").transpose(1, 2),
            ordered("bias_ih_l0", "bias_hh_l0"),
            self.mapped,
        )
        hidden = hidden.squeeze(0)
        return (hidden.transpose(0, 1) if self.batch_first else hidden), None
