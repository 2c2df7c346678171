"""A trace never goes stale: whatever of its cell a step depends on, changing it traces again or sends it to scan."""

import copy
import dataclasses
import gc
import weakref
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import recurra
from examples import CELLS, CellExample
from recurra import Cell, unroll
from recurra.scan import scan
from recurra.unroll import compiled, explain


@dataclasses.dataclass
class Settings:
    gain: float = 1.0


class Kind(type):
    """A metaclass, whose attributes its classes have."""

    common, table = 1.0, [1.0]


class Classified(metaclass=Kind):
    pass


class Changeable(Cell):
    """A cell that depends on everything a cell can depend on."""

    shared = 1.0

    def __init__(self, input_size: int = 3, hidden_size: int = 4) -> None:
        super().__init__(input_size, hidden_size)
        self.w, self.u = nn.Linear(input_size, hidden_size), nn.Linear(hidden_size, hidden_size)
        self.inner = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.Tanh())
        self.alpha = 1.0
        self.widths = [1.0, 2.0]
        self.table = {"a": {"b": 1.0}}
        self.settings = Settings()
        self.activation = torch.tanh
        self.kind = Classified
        self.register_parameter("extra", None)
        self.register_buffer("scale", torch.ones(hidden_size))
        self.double()

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        z = self.w(x) * self.alpha * self.widths[0] * self.table["a"]["b"] * self.settings.gain * self.shared
        z = z * self.kind.common * type(self.kind).table[0]
        z = z + self.inner(self.u(h)) * self.scale
        if self.extra is not None:
            z = z + self.extra
        if self.training:
            z = z * 0.5
        if not self.inner.training:
            z = z * 0.25
        return self.activation(z)


def set_alpha(cell: Changeable) -> None:
    cell.alpha = 0.5


def set_in_list(cell: Changeable) -> None:
    cell.widths[0] = 3.0


def set_in_nested_dict(cell: Changeable) -> None:
    cell.table["a"]["b"] = 3.0


def set_in_object(cell: Changeable) -> None:
    cell.settings.gain = 3.0


def set_behind_setattr(cell: Changeable) -> None:
    cell.__dict__["alpha"] = 0.25


def set_on_the_class(cell: Changeable) -> None:
    type(cell).shared = 4.0


def set_on_the_metaclass(cell: Changeable) -> None:
    Kind.common = 4.0


def set_in_a_list_of_the_metaclass(cell: Changeable) -> None:
    Kind.table[0] = 4.0


def set_on_the_metaclass_of_another_class(cell: Changeable) -> None:
    cell.kind = Kind("Other", (), {"common": 5.0})


def set_function(cell: Changeable) -> None:
    cell.activation = torch.sigmoid


def add_parameter(cell: Changeable) -> None:
    cell.extra = nn.Parameter(torch.ones(4, dtype=torch.double))


def take_bias_away(cell: Changeable) -> None:
    cell.u.bias = None


def set_training_of_submodule(cell: Changeable) -> None:
    cell.inner.eval()


def replace_submodule(cell: Changeable) -> None:
    cell.inner[1] = nn.Sigmoid()


def replace_module(cell: Changeable) -> None:
    cell.inner = nn.Sequential(nn.Linear(4, 4).double(), nn.ReLU())


def change_a_hidden_setting(cell: Changeable) -> None:
    cell.inner[1] = nn.ELU(alpha=1.0)
    unroll(cell, torch.randn(2, 1, 3, dtype=torch.double))
    cell.inner[1].alpha = 0.1


def new_weights_of_another_kind(cell: Changeable) -> None:
    cell.w.weight.data = cell.w.weight.data.float()
    cell.w.weight.data = cell.w.weight.data.double() * 2


def change_eval(cell: Changeable) -> None:
    cell.eval()


def scale_in_place(cell: Changeable) -> None:
    cell.u.weight.data.mul_(2)


def change_buffer(cell: Changeable) -> None:
    cell.scale.fill_(0.5)


def load_weights(cell: Changeable) -> None:
    cell.load_state_dict({k: v + 0.1 for k, v in cell.state_dict().items()})


def swap_parameter(cell: Changeable) -> None:
    cell.w.weight = nn.Parameter(torch.randn(4, 3, dtype=torch.double))


class Halved(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 0.5


class Doubled(Changeable):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return 2 * super().step(x, h)


def change_class_of_submodule(cell: Changeable) -> None:
    cell.u.__class__ = Halved


def change_class(cell: Changeable) -> None:
    cell.__class__ = Doubled


CHANGES = [
    change_class_of_submodule, change_class,
    set_alpha, set_on_the_class, set_in_list, set_in_nested_dict, set_in_object, set_behind_setattr, set_function,
    set_on_the_metaclass, set_in_a_list_of_the_metaclass, set_on_the_metaclass_of_another_class,
    add_parameter, take_bias_away,
    set_training_of_submodule, replace_submodule, replace_module, change_a_hidden_setting, new_weights_of_another_kind,
    change_eval, scale_in_place, change_buffer, load_weights, swap_parameter,
]  # fmt: skip
NUMBERS = {scale_in_place, change_buffer, load_weights, swap_parameter, new_weights_of_another_kind}


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.usefixtures("strict")
def test_a_change_is_seen_at_the_next_call(change: Callable[[Changeable], None]) -> None:
    cell = Changeable()
    x = torch.randn(3, 2, 3, dtype=torch.double)
    before, _ = unroll(cell, x)
    torch.testing.assert_close(before, scan(cell, x)[0])
    try:
        change(cell)
        after, _ = unroll(cell, x)
        expected, _ = scan(cell, x)
    finally:
        Changeable.shared = Kind.common = Kind.table[0] = 1.0
    torch.testing.assert_close(after, expected)
    assert not torch.allclose(before, after)


@pytest.mark.parametrize("change", sorted(NUMBERS, key=lambda f: f.__name__), ids=lambda f: f.__name__)
def test_other_numbers_in_the_weights_are_no_other_trace(change: Callable[[Changeable], None]) -> None:
    cell = Changeable()
    x = torch.randn(3, 2, 3, dtype=torch.double)
    unroll(cell, x)
    first = compiled.find(cell, None)[0]
    change(cell)
    assert compiled.find(cell, None)[0] is first


def test_going_back_finds_the_old_trace() -> None:
    cell = Changeable()
    first = compiled.find(cell, None)[0]
    cell.eval()
    second = compiled.find(cell, None)[0]
    cell.train()
    assert compiled.find(cell, None)[0] is first is not second


def test_of_what_was_recorded_the_last_traces_are_kept() -> None:
    cell = Changeable()
    plain = compiled.find(cell, None)[0]
    choices = [(names, tapped) for names in ((), ("h",), ("output",), ("h", "output")) for tapped in (False, True)][1:]
    choices += [(("output", "h"), False), (("output", "h"), True), (("h", "h"), False)]
    made = {choice: compiled.find(cell, None, *choice)[0] for choice in choices}
    assert [(c.record, c.tapped) for c in made.values()] == choices
    kept = {choice: weakref.ref(c) for choice, c in made.items()}
    del made
    gc.collect()
    alive = [choice for choice, ref in kept.items() if ref() is not None]
    assert alive == choices[-8:]
    for choice in alive:
        assert compiled.find(cell, None, *choice)[0] is kept[choice]()
    assert compiled.find(cell, None)[0] is plain
    del cell, plain
    gc.collect()
    assert not any(ref() for ref in kept.values())


@pytest.mark.usefixtures("strict")
def test_another_dtype_traces_again() -> None:
    cell = Changeable()
    x = torch.randn(3, 2, 3, dtype=torch.double)
    exact, _ = unroll(cell, x)
    cell.float()
    y, _ = unroll(cell, x.float())
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, exact.float(), atol=1e-5, rtol=1e-5)


def test_a_hook_added_later_sends_the_step_to_scan() -> None:
    cell = Changeable()
    x = torch.randn(3, 2, 3, dtype=torch.double)
    assert explain(cell, x).native
    handle = cell.inner[0].register_forward_hook(lambda m, i, o: o * 2)
    told = explain(cell, x)
    assert told.executors == ("scan",) and "hooks" in str(told)
    torch.testing.assert_close(unroll(cell, x)[0], scan(cell, x)[0])
    handle.remove()
    assert explain(cell, x).native


def test_half_precision_and_meta_weights_run_on_scan() -> None:
    cell = Changeable().bfloat16()
    told = explain(cell, torch.randn(3, 2, 3, dtype=torch.bfloat16))
    assert told.executors == ("scan",) and "bfloat16" in str(told)
    cell = Changeable().to("meta")
    told = explain(cell, torch.empty(3, 2, 3, dtype=torch.double, device="meta"))
    assert told.executors == ("scan",) and "meta" in str(told)


def test_autocast_runs_on_scan() -> None:
    cell = Changeable().float()
    x = torch.randn(3, 2, 3)
    with torch.autocast("cpu", dtype=torch.float16):
        told = str(explain(cell, x))
    assert told.startswith("Changeable (input 3; states h 4), T = 3, B = 2: scan\n  because autocast is on\n")
    assert "loop (hoisted)" not in told and "precision" not in told  # no program ran


@pytest.mark.usefixtures("strict")
def test_copies_and_stand_in_weights() -> None:
    cell = Changeable()
    x = torch.randn(3, 2, 3, dtype=torch.double)
    before, _ = unroll(cell, x)
    twin = copy.deepcopy(cell)
    cell.alpha = 2.0
    torch.testing.assert_close(unroll(twin, x)[0], before)
    other = {k: p.detach() * 0.5 for k, p in cell.named_parameters()}
    layer = recurra.Recurrent(twin)
    given = functional_call(layer, {f"cell.{k}": p for k, p in other.items()}, (x,))[0]
    torch.testing.assert_close(given, unroll(twin, x, weights=other)[0])
    with torch.no_grad():
        for k, p in twin.named_parameters():
            p.copy_(other[k])
    torch.testing.assert_close(given, scan(twin, x)[0])


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("example", CELLS, ids=str)
def test_a_copy_and_functional_call_have_the_bits_of_a_layer_with_those_weights(example: CellExample) -> None:
    """Outputs and gradients; the copy's weights are its own, and those of functional_call are nobody's."""
    layer = recurra.Recurrent(example.make(3, 7))
    x = torch.randn(5, 4, 3, requires_grad=True)

    def run(call: Callable[[Tensor], tuple[Tensor, object]], weights: Iterable[Tensor]) -> list[Tensor | None]:
        y, _ = call(x)
        dy = torch.linspace(-1, 1, y.numel()).view_as(y)
        return [y, *torch.autograd.grad(y, [x, *weights], dy, allow_unused=True)]

    before = run(layer, layer.parameters())
    twin = copy.deepcopy(layer)
    other = {k: (0.5 * p.detach()).requires_grad_() for k, p in layer.named_parameters()}
    given = run(lambda x: functional_call(layer, other, (x,)), other.values())
    with torch.no_grad():
        for k, p in twin.named_parameters():
            p.copy_(other[k])
    equal(run(twin, twin.parameters()), given)
    equal(run(layer, layer.parameters()), before)


def equal(found: list[Tensor | None], expected: list[Tensor | None]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))


def test_a_cell_that_goes_leaves_nothing_behind() -> None:
    cell = Changeable()
    unroll(cell, torch.randn(3, 2, 3, dtype=torch.double))
    key = id(cell)
    assert key in compiled.traces()
    del cell
    assert key not in compiled.traces()


@pytest.mark.usefixtures("strict")
def test_parametrized_weights() -> None:
    cell = Changeable()
    nn.utils.parametrizations.weight_norm(cell.u)
    x = torch.randn(3, 2, 3, dtype=torch.double)
    torch.testing.assert_close(unroll(cell, x)[0], scan(cell, x)[0])
    with torch.no_grad():
        cell.u.parametrizations.weight.original0.mul_(3)
    torch.testing.assert_close(unroll(cell, x)[0], scan(cell, x)[0])
    (a,), (b,) = (
        torch.autograd.grad(run(cell, x)[0].sum(), cell.u.parametrizations.weight.original1) for run in (unroll, scan)
    )
    torch.testing.assert_close(a, b)


class Tied(Cell):
    """Two layers with one weight, until somebody unties them."""

    def __init__(self) -> None:
        super().__init__(3, 4)
        self.w, self.u, self.v = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.v.weight = self.u.weight
        self.double()

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(self.w(x) + self.u(torch.tanh(self.v(h))))


@pytest.mark.usefixtures("strict")
def test_untying_a_weight_is_seen() -> None:
    cell, x = Tied(), torch.randn(3, 2, 3, dtype=torch.double)
    torch.testing.assert_close(unroll(cell, x)[0], scan(cell, x)[0])
    cell.v.weight = nn.Parameter(torch.randn(4, 4, dtype=torch.double))
    torch.testing.assert_close(unroll(cell, x)[0], scan(cell, x)[0])


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("name", ["u.weight", "v.weight"])
def test_a_tied_weight_is_replaced_under_either_name(name: str) -> None:
    cell, x = Tied(), torch.randn(3, 2, 3, dtype=torch.double)
    other = torch.randn(4, 4, dtype=torch.double)
    given, _ = unroll(cell, x, weights={name: other})
    with torch.no_grad():
        cell.u.weight.copy_(other)
    torch.testing.assert_close(given, scan(cell, x)[0])


def test_weights_that_the_cell_has_not_are_refused() -> None:
    with pytest.raises(recurra.InputError, match=r"weights has 'q', but Tied has no parameter or buffer of that name"):
        unroll(Tied(), torch.randn(3, 2, 3, dtype=torch.double), weights={"q": torch.zeros(1)})
