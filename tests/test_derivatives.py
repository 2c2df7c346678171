"""Derivatives of every kind, for every cell: checked numerically, and against scan under transforms."""

from collections.abc import Callable

import pytest
import torch
from steps import STEPS, Step, Zeros
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap

from examples import CELLS, CellExample
from recurra import Cell, unroll
from recurra.scan import scan
from recurra.unroll import explain

Run = Callable[..., tuple[Tensor, tuple[Tensor, ...]]]
SMOOTH = [make for make in STEPS if make is not Zeros]


def made(example: CellExample) -> Cell:
    return example.make(3, 2).double()


def function(cell: Cell, run: Run, lengths: Tensor | None = None, reverse: bool = False) -> Callable[..., Tensor]:
    """(x, *states, *parameters) -> outputs and last states in one row."""
    names = [k for k, _ in cell.named_parameters()]
    n = len(cell.state_sizes)

    def call(x: Tensor, *rest: Tensor) -> Tensor:
        states, weights = rest[:n], dict(zip(names, rest[n:], strict=True))
        if run is unroll:
            y, last = unroll(cell, x, states, lengths, reverse, weights)
        else:
            y, last = functional_call(
                _Scan(cell), {f"cell.{k}": w for k, w in weights.items()}, (x, states, lengths, reverse)
            )
        return torch.cat([t.reshape(-1) for t in (y, *last)])

    return call


class _Scan(torch.nn.Module):
    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, *args):
        return scan(self.cell, *args)


def arguments(cell: Cell, T: int = 3, B: int = 2, needs_grad: bool = True) -> list[Tensor]:
    x = torch.randn(T, B, cell.input_size, dtype=torch.double)
    states = [0.5 * torch.randn(B, n, dtype=torch.double) for n in cell.state_sizes.values()]
    return [t.detach().clone().requires_grad_(needs_grad) for t in (x, *states, *cell.parameters())]


def same(a: object, b: object) -> None:
    torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("example", CELLS, ids=str)
@pytest.mark.parametrize(("lengths", "reverse"), [(None, False), ([1, 3], True)], ids=["whole", "lengths reversed"])
@pytest.mark.usefixtures("strict")
def test_gradients_and_their_gradients_are_right(
    example: CellExample, lengths: list[int] | None, reverse: bool
) -> None:
    cell = made(example)
    call = function(cell, unroll, None if lengths is None else torch.tensor(lengths), reverse)
    assert gradcheck(call, arguments(cell), fast_mode=True)
    assert gradgradcheck(call, arguments(cell), fast_mode=True)


@pytest.mark.parametrize("make", SMOOTH)
def test_gradients_of_every_idiom(make: type[Step]) -> None:
    cell = make()
    call = function(cell, unroll)
    assert gradcheck(call, arguments(cell, 2), fast_mode=True)
    assert gradgradcheck(call, arguments(cell, 2), fast_mode=True)


def test_gradients_at_zero_are_those_of_scan() -> None:
    cell = Zeros()
    x = torch.randn(2, 3, cell.input_size, dtype=torch.double)
    weights = list(cell.W.parameters())
    ours, theirs = (torch.autograd.grad(run(cell, x)[0].sum(), weights) for run in (unroll, scan))
    for a, b in zip(ours, theirs, strict=True):
        same(a, b)


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_forward_mode(example: CellExample) -> None:
    cell = made(example)
    at, along = arguments(cell, needs_grad=False), arguments(cell, needs_grad=False)
    ours, theirs = (jvp(function(cell, run), tuple(at), tuple(along)) for run in (unroll, scan))
    same(ours, theirs)
    assert gradcheck(
        function(cell, unroll), arguments(cell), check_forward_ad=True, check_backward_ad=False, fast_mode=True
    )


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_vmap_over_data_and_over_weights(example: CellExample) -> None:
    cell = made(example)
    at = arguments(cell, needs_grad=False)
    many = [torch.stack([t, 2 * t, t - 1]) for t in at]
    data = (0,) * (1 + len(cell.state_sizes)) + (None,) * (len(at) - 1 - len(cell.state_sizes))
    weights = tuple(0 if d is None else None for d in data)
    for dims in (data, weights, (0,) * len(at)):
        given = [m if d == 0 else t for m, t, d in zip(many, at, dims, strict=True)]
        if any(d == 0 for d in dims):
            same(*(vmap(function(cell, run), dims)(*given) for run in (unroll, scan)))


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_gradients_of_each_sample(example: CellExample) -> None:
    cell = made(example)
    at = arguments(cell, B=1, needs_grad=False)
    x = torch.randn(4, *at[0].shape, dtype=torch.double)

    def per_sample(run: Run) -> object:
        loss = lambda *args: function(cell, run)(*args).square().sum()  # noqa: E731
        return vmap(grad(loss, tuple(range(len(at)))), (0, *[None] * (len(at) - 1)))(x, *at[1:])

    same(per_sample(unroll), per_sample(scan))


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_gradients_of_each_of_several_networks(example: CellExample) -> None:
    """vmap(grad) over stacked parameters, states and inputs: an ensemble trained in one call."""
    cell = example.make(3, 2).double()
    at = arguments(cell, needs_grad=False)
    many = [torch.stack([t, 0.5 * t, t - 0.25]) for t in at]

    def ensemble(run: Run) -> object:
        loss = lambda *args: function(cell, run)(*args).square().sum()  # noqa: E731
        return vmap(grad(loss, tuple(range(len(at)))))(*many)

    same(ensemble(unroll), ensemble(scan))


@pytest.mark.parametrize("example", CELLS[::4], ids=str)
def test_jacobians_and_hessians(example: CellExample) -> None:
    cell = made(example)
    at = arguments(cell, 2, 1, needs_grad=False)

    def all_of_them(run: Run) -> list[object]:
        call = function(cell, run)
        loss = lambda x, *rest: call(x, *rest).square().sum()  # noqa: E731
        return [jacrev(call)(*at), jacfwd(call)(*at), hessian(loss)(*at), jacrev(jacrev(loss))(*at)]

    for ours, theirs in zip(all_of_them(unroll), all_of_them(scan), strict=True):
        same(ours, theirs)


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_a_batch_of_gradients_at_once(example: CellExample) -> None:
    cell = made(example)
    at = arguments(cell)
    results = []
    for run in (unroll, scan):
        y = function(cell, run)(*at)
        d = torch.eye(len(y), dtype=torch.double)
        found = torch.autograd.grad(y, at, d, is_grads_batched=True, allow_unused=True)
        results.append([t for t in found if t is not None])
    same(*results)


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_dual_numbers(example: CellExample) -> None:
    cell = made(example)
    at, along = arguments(cell, needs_grad=False), arguments(cell, needs_grad=False)
    tangents = []
    for run in (unroll, scan):
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(at[0], along[0])
            tangents.append(torch.autograd.forward_ad.unpack_dual(function(cell, run)(dual, *at[1:])).tangent)
    same(*tangents)


def test_what_a_transform_ran_on_is_told() -> None:
    cell = made(CELLS[0])
    x = torch.randn(3, 2, 3, dtype=torch.double)
    told = []
    vmap(lambda v: told.append(explain(cell, v)) or v, 1)(x[:, :, None])
    assert told[0].executors == ("PyTorch",) and "transform" in str(told[0])


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_gradients_flow_into_given_states_and_into_what_initial_returns(example: CellExample) -> None:
    cell = made(example)
    x = torch.randn(3, 2, 3, dtype=torch.double)
    for run in (unroll, scan):
        for p in cell.parameters():
            p.grad = None
        y, last = run(cell, x)
        (y.square().sum() + sum(s.square().sum() for s in last)).backward()
        if run is unroll:
            ours = {k: p.grad.clone() for k, p in cell.named_parameters() if p.grad is not None}
    theirs = {k: p.grad for k, p in cell.named_parameters() if p.grad is not None}
    for k in theirs:
        same(ours.get(k, torch.zeros_like(theirs[k])), theirs[k])


@pytest.mark.usefixtures("strict")
def test_only_what_is_asked_for_is_computed() -> None:
    cell = made(CELLS[5]).requires_grad_(False)
    x = torch.randn(3, 2, 3, dtype=torch.double, requires_grad=True)
    _, last = unroll(cell, x)
    (d,) = torch.autograd.grad(last[1].sum(), x)
    (e,) = torch.autograd.grad(scan(cell, x)[1][1].sum(), x)
    same(d, e)
    assert all(p.grad is None for p in cell.parameters())
    assert not unroll(cell, x.detach())[0].requires_grad
    cell.weight_hh.requires_grad_(True)
    unroll(cell, x.detach())[0].sum().backward()
    assert cell.weight_hh.grad is not None and cell.weight_ih.grad is None


@pytest.mark.usefixtures("strict")
def test_backward_can_run_twice_and_through_a_checkpoint() -> None:
    cell = made(CELLS[5])
    x = torch.randn(3, 2, 3, dtype=torch.double, requires_grad=True)
    y, _ = unroll(cell, x)
    (first,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    (second,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(first, second)
    again = torch.utils.checkpoint.checkpoint(lambda v: unroll(cell, v)[0], x, use_reentrant=False)
    (third,) = torch.autograd.grad(again.sum(), x)
    assert torch.equal(first, third)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y.sum(), x)


@pytest.mark.usefixtures("strict")
def test_a_weight_changed_between_forward_and_backward_is_noticed() -> None:
    cell = made(CELLS[5])
    y, _ = unroll(cell, torch.randn(3, 2, 3, dtype=torch.double))
    with torch.no_grad():
        cell.weight_hh.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.usefixtures("strict")
def test_expanded_gradients_and_strided_rows() -> None:
    cell = made(CELLS[8])
    x = torch.randn(2, 3, 6, dtype=torch.double).transpose(0, 1)[..., ::2].requires_grad_()
    h = torch.randn(2, 4, dtype=torch.double)[:, ::2].requires_grad_()
    results = []
    for run in (unroll, scan):
        y, _ = run(cell, x, (h,))
        results.append(torch.autograd.grad(y.mean(), [x, h, *cell.parameters()]))
    same(*results)
