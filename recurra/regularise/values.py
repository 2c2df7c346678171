"""Dropout of single values, between layers."""

from torch import Tensor

from recurra.machine import masks


def dropout(x: Tensor, rate: float, training: bool = True) -> Tensor:
    """m ∘ x,   m ~ Bernoulli(1 - rate) / (1 - rate), for each value of x (T, B, D), (B, D) or (D,); out of training x.

    Srivastava et al. 2014, JMLR 15. As torch.nn.functional.dropout, but the mask is a function of a key, which a call
    draws from PyTorch's default generator, of the step, the row's place in the batch and the unit; and it is drawn
    many times faster.
    """
    return masks.dropout(x, rate, masks.new_key()) if training and rate else x
