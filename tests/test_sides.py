"""Rows beside x: given from outside they are what scan makes of them, and gradients flow into those that want one."""

import pytest
import torch
from checks import filled, random_lengths, weighed
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import jvp, vmap
from torch.nn.utils.rnn import pack_padded_sequence

import recurra
from examples import Learned, Nudged, Peephole
from recurra import Cell, CellError, InputError, cells, scan, unroll
from recurra.cell import Wrapper, innermost
from recurra.cell.wrapper import InnerStep
from recurra.machine.native import NativeExecutor
from recurra.unroll import Call, answer, visits
from recurra.unroll.compiled import find

States = tuple[Tensor, ...]


class Chosen(Wrapper):
    """A wrapper with two sides: where `keep` is above zero the states stay; `scale` multiplies the input."""

    def own_sizes(self) -> dict[str, int]:
        return {"keep": 1, "scale": self.input_size}

    def own_sides(self, x: Tensor) -> States:
        return x.new_zeros(()).expand(*x.shape[:2], 1), x.new_ones(()).expand(*x.shape[:2], self.input_size)

    def around(self, step: InnerStep, x: Tensor, sides: States, states: States) -> tuple[Tensor, States]:
        keep, scale = sides
        y, nexts = step(x * scale, states)
        return y, tuple(torch.where(keep > 0, old, new) for old, new in zip(states, nexts, strict=True))


WRAPPED = [
    pytest.param(lambda: Nudged(cells.GRU(3, 4)), id="one side"),
    pytest.param(lambda: Chosen(Peephole(3, 4)), id="two sides"),
    pytest.param(lambda: Nudged(Chosen(Nudged(Learned(3, 4)))), id="three wrappers"),
]


def made(make: object) -> tuple[Cell, Tensor, States]:
    """A wrapped cell in fp64, x (5, 3, 3) and sides drawn at random."""
    cell: Cell = make().double()  # type: ignore[operator]
    x = torch.randn(5, 3, cell.input_size, dtype=torch.double)
    return cell, x, tuple(torch.randn(5, 3, n, dtype=torch.double) for n in cell.side_sizes.values())


def executor_of(cell: Cell) -> NativeExecutor:
    found = find(cell, None)[0].executor
    assert found is not None
    return found


def same(a: object, b: object) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("make", WRAPPED)
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.usefixtures("strict")
def test_given_sides_and_their_gradients_are_those_of_scan(make: object, lengths: bool, reverse: bool) -> None:
    cell, x, sides = made(make)
    given = [t.requires_grad_() for t in (x, *sides)]
    long = random_lengths(5, 3) if lengths else None
    found = []
    for run in (unroll, scan):
        y, last = run(cell, x, None, long, reverse, sides=sides)
        loss = weighed(y, *last)
        gradients = torch.autograd.grad(loss, [*given, *cell.parameters()], allow_unused=True)
        found.append([y, *last, *filled([*given, *cell.parameters()], gradients)])
    for ours, theirs in zip(*found, strict=True):
        same(ours, theirs)


@pytest.mark.parametrize("make", WRAPPED)
@pytest.mark.usefixtures("strict")
def test_packed_sides_are_padded_ones(make: object) -> None:
    cell, x, sides = made(make)
    lengths = torch.tensor([5, 3, 2])
    packed = pack_padded_sequence(x, lengths)
    rows = [pack_padded_sequence(s, lengths).data for s in sides]
    for beside, packed_beside in ((sides, tuple(rows)), (None, None)):
        y, last = unroll(cell, x, None, lengths, sides=beside)
        ours = answer(Call(cell, packed.data, sides=packed_beside, batch_sizes=packed.batch_sizes))
        assert torch.equal(ours[0], pack_padded_sequence(y, lengths).data)
        assert all(torch.equal(a, b) for a, b in zip(ours[1], last, strict=True))


@pytest.mark.parametrize("make", WRAPPED)
@pytest.mark.usefixtures("strict")
def test_every_derivative_in_the_sides(make: object) -> None:
    cell, x, sides = made(make)

    def call(x: Tensor, *sides: Tensor, run: object = unroll) -> Tensor:
        y, last = run(cell, x, sides=sides)  # type: ignore[operator]
        return torch.cat([t.reshape(-1) for t in (y, *last)])

    at = [t.requires_grad_() for t in (x, *sides)]
    assert gradcheck(call, at, fast_mode=True)
    assert gradgradcheck(call, at, fast_mode=True)
    along = tuple(torch.randn_like(t) for t in at)
    plain = tuple(t.detach() for t in at)
    same(jvp(call, plain, along), jvp(lambda *a: call(*a, run=scan), plain, along))
    many = tuple(torch.stack([t, 2 * t]) for t in plain)
    same(vmap(call)(*many), vmap(lambda *a: call(*a, run=scan))(*many))


@pytest.mark.usefixtures("strict")
def test_only_the_sides_that_want_one_get_a_gradient() -> None:
    cell, x, (keep, scale) = made(lambda: Chosen(cells.GRU(3, 4)))
    for wanted in (x, keep, scale):
        for t in (x, keep, scale):
            t.requires_grad_(t is wanted)
        same(
            *(
                filled(
                    [wanted], torch.autograd.grad(run(cell, x, sides=(keep, scale))[0].sum(), wanted, allow_unused=True)
                )
                for run in (unroll, scan)
            )
        )
        computed = executor_of(cell)._backward
        assert {key[1] for key in computed} >= {tuple(t is wanted for t in (x, keep, scale))}


@pytest.mark.usefixtures("strict")
def test_equal_gradients_of_two_inputs_have_each_their_own_memory() -> None:
    class Sum(Wrapper):
        def own_sizes(self) -> dict[str, int]:
            return {"more": self.input_size}

        def around(self, step: InnerStep, x: Tensor, sides: States, states: States) -> tuple[Tensor, States]:
            return step(x + sides[0], states)

    x, more = (torch.randn(2, 3, 3, requires_grad=True) for _ in range(2))
    unroll(Sum(cells.GRU(3, 4)), x, sides=(more,))[0].sum().backward()
    assert x.grad is not None and more.grad is not None
    assert torch.equal(x.grad, more.grad) and x.grad.data_ptr() != more.grad.data_ptr()


@pytest.mark.usefixtures("strict")
def test_an_input_without_gradient_whose_gradient_a_weight_reads() -> None:
    """x + W h: the gradient of x is the left operand of W's, whether or not x wants one."""

    class Bare(Cell):
        def __init__(self, size: int) -> None:
            super().__init__(size, size)
            self.w = torch.nn.Parameter(torch.eye(size) / 2)

        def step(self, x: Tensor, h: Tensor) -> Tensor:
            return torch.tanh(x + h @ self.w.t())

    cell, x = Bare(4).double(), torch.randn(5, 2, 4, dtype=torch.double)
    same(*(torch.autograd.grad(run(cell, x)[0].sum(), cell.w) for run in (unroll, scan)))


def test_the_sides_of_a_wrapper_can_be_learned() -> None:
    class Bias(Wrapper):
        def __init__(self, inner: Cell) -> None:
            super().__init__(inner)
            self.b = torch.nn.Parameter(torch.ones(inner.input_size))

        def own_sizes(self) -> dict[str, int]:
            return {"bias": self.input_size}

        def own_sides(self, x: Tensor) -> States:
            return (self.b.expand(*x.shape[:2], -1),)

        def around(self, step: InnerStep, x: Tensor, sides: States, states: States) -> tuple[Tensor, States]:
            return step(x + sides[0], states)

    cell, x = Bias(cells.GRU(3, 4)), torch.randn(5, 2, 3)
    with visits() as seen:
        unroll(cell, x)[0].sum().backward()
    assert seen[0].executor == "native machine" and cell.b.grad is not None and bool(cell.b.grad.any())
    stand_in = {"b": torch.zeros(3), **{n: p.detach() for n, p in cell.named_parameters() if n != "b"}}
    plain = unroll(cell.inner, x)[0]
    assert torch.equal(unroll(cell, x, weights=stand_in)[0], plain)


# ---- wrappers


def test_a_wrapper_has_the_states_of_the_cell_inside() -> None:
    inner = Learned(3, 4)
    cell = Nudged(Chosen(Nudged(inner)))
    assert cell.state_names == ("h",) and dict(cell.state_sizes) == {"h": 4}
    assert list(cell.side_sizes.items()) == [("nudge2", 4), ("keep", 1), ("scale", 3), ("nudge", 4)]
    assert not cell.starts_at_zero and Nudged(cells.GRU(3, 4)).starts_at_zero
    assert torch.equal(cell.initial(2), inner.initial(2)) and cell.output_size == 8
    assert innermost(cell) is inner


def test_a_wrapper_follows_the_mode_and_the_attributes_of_what_is_inside() -> None:
    class Damped(Nudged):
        def own_sizes(self) -> dict[str, int]:
            return super().own_sizes() if self.training else {}

        def own_sides(self, x: Tensor) -> States:
            row = torch.ones(4, dtype=x.dtype)
            return (row.expand(*x.shape[:2], -1),) if self.training else ()

        def around(self, step: InnerStep, x: Tensor, sides: States, states: States) -> tuple[Tensor, States]:
            return super().around(step, x, sides, states) if sides else step(x, states)

    inner, x = cells.GRU(3, 4), torch.randn(5, 2, 3)
    cell = Damped(inner)
    trained = unroll(cell, x)[0]
    assert torch.equal(unroll(cell.eval(), x)[0], unroll(inner, x)[0])
    assert not torch.equal(trained, unroll(cell, x)[0])
    assert torch.equal(unroll(cell.train(), x)[0], trained)
    session = recurra.Session(recurra.Recurrent(cell.eval()))
    assert torch.equal(session.step(x[0]), unroll(inner, x)[0][0])


def test_what_is_no_cell_is_not_wrapped() -> None:
    with pytest.raises(InputError) as caught:
        Nudged(torch.nn.Linear(3, 4))  # type: ignore[arg-type]
    assert str(caught.value) == "Nudged wraps a recurra.Cell, and Linear is none. Derive it from Cell."


def test_sides_that_do_not_fit() -> None:
    cell, x = Nudged(cells.GRU(3, 4)), torch.randn(5, 2, 3)
    for run in (unroll, scan):
        with pytest.raises(InputError) as caught:
            run(cell, x, sides=(torch.zeros(5, 2, 3),))
        assert str(caught.value) == (
            "the given sides of Nudged(GRU) has nudge of shape (5, 2, 3), but x of shape (5, 2, 3) needs (5, 2, 4). "
            "A side has one row for each row of x."
        )
        with pytest.raises(InputError) as caught:
            run(cell, x, sides=())
        assert str(caught.value) == (
            "the given sides of Nudged(GRU) is 0 values, but beside x it reads nudge: give one tensor for each."
        )
        with pytest.raises(InputError) as caught:
            run(cells.GRU(3, 4), x, sides=(x,))
        assert str(caught.value) == (
            "the given sides of GRU is 1 value, but beside x it reads nothing: give one tensor for each."
        )


def test_a_hook_that_gives_too_little() -> None:
    class Lazy(Nudged):
        def own_sides(self, x: Tensor) -> States:
            return ()

    with pytest.raises(CellError, match=r"sides\(x\) of Lazy\(GRU\) is 0 values, but beside x it reads nudge"):
        unroll(Lazy(cells.GRU(3, 4)), torch.randn(5, 2, 3))


def test_a_broken_step_inside_is_named_as_the_users() -> None:
    class Short(Cell):
        def step(self, x: Tensor, h: Tensor) -> Tensor:
            return h[:, :1]

    with pytest.raises(CellError, match=r"Short.step received h \(2, 4\) but returned h \(2, 1\)"):
        scan(Nudged(Short(3, 4)), torch.randn(5, 2, 3))
    with pytest.raises(CellError, match=r"Short.step received h .* see test_sides.py, line"):
        unroll(Nudged(Short(3, 4)), torch.randn(5, 2, 3))
