"""The cross-entropy of a linear layer's scores, of which only some rows stand in memory at a time."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_NUMBERS = 2_500_000  # scores that are held at a time: 10 MB


def linear_cross_entropy(y: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, bf16: bool = False) -> Tensor:
    """mean_n -ln softmax(W y_n + b)_{targets_n}, y (N, H), W (V, H), with its gradients made on the way.

    The gradient of a row of scores is (softmax - one-hot) / N: with the scores at hand it takes no second pass over
    them, and the N V scores are never all there. bf16: the products are of bfloat16 numbers, all else is fp32.
    """
    loss: Tensor = _Loss.apply(y, weight, bias, targets, bf16)  # type: ignore[no-untyped-call]
    return loss


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, bf16: bool) -> Tensor:
        N, V = len(y), len(weight)
        kind = torch.bfloat16 if bf16 else y.dtype
        narrow, total = weight.to(kind), y.new_zeros(())
        dy, d_weight, d_bias = torch.empty_like(y), torch.zeros_like(weight), torch.zeros_like(bias)
        for begin in range(0, N, max(1, _NUMBERS // V)):
            rows = slice(begin, begin + max(1, _NUMBERS // V))
            x, target = y[rows].to(kind), targets[rows, None]
            scores = F.linear(x, narrow).to(y.dtype).add_(bias)
            level = scores.logsumexp(1, keepdim=True)
            total += (level - scores.gather(1, target)).sum()
            d = scores.sub_(level).exp_()
            d.scatter_add_(1, target, torch.full_like(level, -1.0)).div_(N)
            d_bias += d.sum(0)
            d = d.to(kind)
            dy[rows] = d @ narrow
            d_weight += d.t() @ x
        ctx.save_for_backward(dy, d_weight, d_bias)
        return total / N

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        dy, d_weight, d_bias = ctx.saved_tensors
        return dy * given, d_weight * given, d_bias * given, None, None
