"""accelerate: somebody else's model gives the same, keeps what it holds, and hears what became of every layer."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import alike, numbers
from drop_in import OPTIONS
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

import recurra
from recurra import InputError
from recurra.layers import Acceleration

D, H = 3, 4


class Tagger(nn.Module):
    """Somebody else's model: an encoder in a list, a decoder that is used twice, a cell in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleList([nn.LSTM(D, H, batch_first=True, bidirectional=True), nn.GRU(2 * H, H)])
        self.shared = nn.RNN(H, H, num_layers=2)
        self.again = self.shared
        self.cell = nn.GRUCell(H, H)
        self.out = nn.Linear(H, 2)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.encoders[0](x)
        y, _ = self.encoders[1](y.transpose(0, 1))
        y, h = self.shared(y)
        y, _ = self.again(y, h)
        state = None
        for row in y:
            state = self.cell(row, state)
        return self.out(y + state)


def results(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and all gradients."""
    x = x.clone().requires_grad_()
    y = model(x)
    y = y if isinstance(y, Tensor) else y[0]
    return [y, *torch.autograd.grad(y.square().sum(), [x, *model.parameters()])]


def only(report: Acceleration) -> str:
    """The reason why the one recurrent layer of a model was left."""
    assert not report.replaced
    (left,) = report.left
    return left.reason


# ------------------------------------------------------------------------------------------------------------- replaced


def test_a_model_gives_the_same_and_says_what_was_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    model = Tagger().double()
    x = numbers(2, 5, D)
    before = results(model, x)
    report = recurra.accelerate(model)
    assert capsys.readouterr().out == f"{report}\n"
    assert str(report) == (
        "encoders.0 (LSTM) is a recurra.LSTM now.\n"
        "encoders.1 (GRU) is a recurra.GRU now.\n"
        "shared = again (RNN) is a recurra.RNN now.\n"
        "cell (GRUCell) is left as it was: the model's own loop steps it, and one step alone is no faster in ours; "
        "give the whole sequence to a recurra.GRU, or single steps to a recurra.Session."
    )
    assert repr(report) == "Acceleration(3 replaced, 1 left)"
    with recurra.strict():
        alike(results(model, x), before)
    assert recurra.explain(model, x).native


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=[f"{n} {' '.join(map(str, o))}".strip() for n, o in OPTIONS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_everything_a_layer_holds_is_kept(name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    layer = getattr(nn, name)(D, H, dtype=dtype, **options).eval()
    layer.bias_hh_l0_note = "a user's own attribute"
    x = numbers(5, 2, D).to(dtype)
    expected, parameters = results(layer, x), list(layer.named_parameters())
    attributes, text, references = dict(vars(layer)), repr(layer), [layer]
    report = recurra.accelerate(layer)
    assert str(report) == f"the model itself ({name}) is a recurra.{name} now."
    assert isinstance(layer, getattr(recurra, name)) and references[0] is layer
    assert vars(layer) == attributes and repr(layer) == text and not layer.training
    assert all(a is b and m == n for (m, a), (n, b) in zip(layer.named_parameters(), parameters, strict=True))
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    with recurra.strict():
        torch.testing.assert_close(results(layer, x), expected, rtol=tolerance, atol=tolerance)


def test_an_optimiser_made_before_goes_on() -> None:
    models = [Tagger().double()]
    models.append(copy.deepcopy(models[0]))
    x = numbers(2, 5, D)
    for model, ours in zip(models, (False, True), strict=True):
        optimiser = torch.optim.Adam(model.parameters())
        for step in range(4):
            if ours and step == 2:
                recurra.accelerate(model)
            optimiser.zero_grad()
            model(x).square().sum().backward()
            optimiser.step()
    torch.testing.assert_close(models[1].state_dict(), models[0].state_dict(), rtol=1e-9, atol=1e-9)
    assert list(models[1].state_dict()) == list(models[0].state_dict())


def test_hooks_on_weights_and_on_modules_around_go_on() -> None:
    model, seen = nn.Sequential(nn.GRU(D, H)), []
    model.register_forward_hook(lambda *_: seen.append("model"))
    model[0].weight_hh_l0.register_hook(lambda g: seen.append("gradient"))
    assert len(recurra.accelerate(model).replaced) == 1
    model(torch.randn(2, 1, D))[0].sum().backward()
    assert seen == ["model", "gradient"]


def test_what_is_ours_already_is_passed_over() -> None:
    model = nn.Sequential(nn.LSTM(D, H), recurra.GRU(H, H), recurra.Recurrent(recurra.cells.LSTM(H, H)))
    assert len(recurra.accelerate(model).replaced) == 1
    assert recurra.accelerate(model) == Acceleration((), ())
    assert (
        str(recurra.accelerate(nn.Linear(2, 2)))
        == "Nothing is replaced: the model has no RNN, LSTM or GRU of torch.nn."
    )


@pytest.mark.filterwarnings("ignore")  # of the tracers, about torch.nn's own lines
def test_what_records_operations_gets_torchs_own_or_our_operator() -> None:
    model = nn.GRU(D, H)
    x = torch.randn(4, 2, D)
    expected = model(x)
    recurra.accelerate(model)
    traced = torch.jit.trace(model, (x,), check_trace=False)
    assert "aten::gru" in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), expected)
    exported = torch.export.export(model, (x,))
    assert [node.target for node in exported.graph.nodes].count(torch.ops.recurra.run.default) == 1
    torch.testing.assert_close(exported.module()(x), expected)
    compiled = torch.compile(lambda v: model(v)[0], backend="eager")
    torch.testing.assert_close(compiled(x), expected[0])


# ----------------------------------------------------------------------------------------------------------------- left


class Doubled(nn.LSTM):
    def forward(self, *arguments: Any) -> Any:
        y, last = super().forward(*arguments)
        return 2 * y, last


def hooked(register: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        layer = nn.LSTM(D, H)
        getattr(layer, register)(lambda *_: None)
        return layer

    return make


def parametrised() -> nn.Module:
    return parametrizations.weight_norm(nn.LSTM(D, H), "weight_hh_l0")


def normed_the_old_way() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return weight_norm(nn.LSTM(D, H), "weight_hh_l0")


def patched() -> nn.Module:
    layer = nn.GRU(D, H)
    layer.forward = lambda x, hx=None: (x, hx)
    return layer


def dropped() -> nn.Module:
    """As fastai's WeightDropout has it: the weight is an attribute, set anew before each call."""
    layer = nn.LSTM(D, H)
    raw = layer._parameters.pop("weight_hh_l0")
    layer.weight_hh_l0 = raw.detach() * 0.5
    return layer


def swapped() -> nn.Module:
    layer = nn.LSTM(D, H)
    layer._parameters["bias_hh_l0"] = nn.Parameter(torch.zeros(4 * H))  # torch.nn goes on with the old one
    return layer


class Marked(Tensor):
    """A kind of tensor that is not PyTorch's own."""


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.LSTM(D, H)), {nn.LSTM})


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Sequential(nn.LSTM(D, H)))


def compiled_in_place() -> nn.Module:
    model = nn.Sequential(nn.LSTM(D, H))
    model.compile(backend="eager")
    return model


REMEDY = "which may change what goes in or out; remove it, accelerate, register it again"
COMPILED = "torch.compile runs it; accelerate the model before it is compiled, or leave it to the compiler"
NUMBERS = "and the native machine runs in float32 and float64"
LEFT: list[tuple[str, Callable[[], nn.Module], str]] = [
    ("forward hook", hooked("register_forward_hook"), f"it has a forward hook, {REMEDY}"),
    ("forward pre-hook", hooked("register_forward_pre_hook"), f"it has a forward pre-hook, {REMEDY}"),
    ("backward hook", hooked("register_full_backward_hook"), f"it has a backward hook, {REMEDY}"),
    ("backward pre-hook", hooked("register_full_backward_pre_hook"), f"it has a backward pre-hook, {REMEDY}"),
    ("weight_norm", normed_the_old_way, f"it has a forward pre-hook, {REMEDY}"),
    (
        "parametrization",
        parametrised,
        "a parametrization computes weight_hh_l0; build it as a recurra.LSTM, which takes parametrizations",
    ),
    (
        "subclass",
        lambda: Doubled(D, H),
        "its class derives from torch.nn.LSTM and may compute something else; derive it from recurra.LSTM",
    ),
    ("patched", patched, "its forward was replaced by another function"),
    ("weight drop", dropped, "its weight_hh_l0 is no parameter of its own, but set from elsewhere"),
    ("swapped weight", swapped, "its bias_hh_l0 is no parameter of its own, but set from elsewhere"),
    ("half", lambda: nn.GRU(D, H).bfloat16(), f"its weight_ih_l0 is torch.bfloat16, {NUMBERS}"),
    (
        "elsewhere",
        lambda: nn.GRU(D, H, device="meta"),
        "its weight_ih_l0 is on meta, and the native machine runs on the CPU",
    ),
    ("quantised", quantised, f"it is quantised, {NUMBERS}"),
    ("scripted", scripted, "TorchScript runs it; accelerate the model that it was made from"),
    ("compiled", lambda: torch.compile(nn.Sequential(nn.LSTM(D, H)), backend="eager"), COMPILED),
    ("compiled in place", compiled_in_place, COMPILED),
    *(
        (
            f"{name}Cell",
            lambda name=name: getattr(nn, f"{name}Cell")(D, H),
            "the model's own loop steps it, and one step alone is no faster in ours; "
            f"give the whole sequence to a recurra.{name}, or single steps to a recurra.Session",
        )
        for name in ("RNN", "LSTM", "GRU")
    ),
]


@pytest.mark.parametrize(("make", "reason"), [row[1:] for row in LEFT], ids=[row[0] for row in LEFT])
def test_what_could_mean_something_else_is_left_and_said(make: Callable[[], nn.Module], reason: str) -> None:
    model = make()
    classes = [type(module) for module in model.modules()]
    report = recurra.accelerate(model)
    assert only(report) == reason
    assert str(report).endswith(f"is left as it was: {reason}.") and "\n" not in str(report)
    assert [type(module) for module in model.modules()] == classes


def test_a_weight_of_a_foreign_kind_is_left() -> None:
    layer = nn.LSTM(D, H)
    layer.weight_hh_l0 = nn.Parameter(torch.zeros(4 * H, H).as_subclass(Marked))
    assert only(recurra.accelerate(layer)) == "its weight_hh_l0 is a Marked, whose numbers only PyTorch can read"


def test_a_parametrization_on_ours_is_native_as_the_remedy_says() -> None:
    layer = parametrizations.weight_norm(recurra.LSTM(D, H), "weight_hh_l0")
    with recurra.strict():
        layer(torch.randn(2, 1, D))[0].sum().backward()


def test_without_the_native_machine_all_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurra.machine.native, "library", None)
    monkeypatch.setattr(recurra.machine.program, "library", None)
    assert only(recurra.accelerate(nn.LSTM(D, H))) == "this installation has no native part (recurra._native)"


def test_something_else_than_a_module() -> None:
    with pytest.raises(InputError) as told:
        recurra.accelerate(dict)  # type: ignore[arg-type]
    assert str(told.value) == (
        "accelerate takes a torch.nn.Module, and a type came. "
        "Pass the model; its recurrent layers are replaced in place."
    )
