"""RNN, LSTM and GRU in the place of torch.nn's: same numbers, same gradients, same words when something is wrong."""

import copy
import itertools
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils._pytree import tree_leaves, tree_map

import recurra
from recurra import InputError, StrictError

NAMES = ("RNN", "LSTM", "GRU")
over_names = pytest.mark.parametrize("name", NAMES)
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES),
    *((name, {"bidirectional": True}) for name in NAMES),
    *((name, {"num_layers": 3, "bias": False}) for name in NAMES),
    *((name, {"num_layers": 2, "bidirectional": True, "batch_first": True}) for name in NAMES),
    ("RNN", {"nonlinearity": "relu"}),
    ("LSTM", {"proj_size": 2}),
    ("LSTM", {"proj_size": 3, "num_layers": 2, "bidirectional": True, "bias": False}),
]
over_options = pytest.mark.parametrize(
    ("name", "options"), OPTIONS, ids=[f"{n} {' '.join(map(str, o))}".strip() for n, o in OPTIONS]
)
D, H = 3, 4
few = settings(max_examples=10)
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


@pytest.fixture(autouse=True)
def _on_the_native_machine(request: pytest.FixtureRequest) -> Iterator[None]:
    """A fall-back to scan is an error here, but for the test that is about one."""
    if "autocast" in request.node.name:
        yield
        return
    with recurra.strict():
        yield


def pair(name: str, *arguments: Any, dtype: torch.dtype = torch.float64, **options: Any) -> tuple[Any, Any]:
    """torch.nn's module and ours, with the same weights."""
    arguments = arguments or (D, H)
    theirs = getattr(nn, name)(*arguments, dtype=dtype, **options)
    ours = getattr(recurra, name)(*arguments, dtype=dtype, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def sequence(module: Any, T: int, B: int) -> Tensor:
    return numbers(B, T, D) if module.batch_first else numbers(T, B, D)


def states(module: Any, *batch: int) -> Any:
    parts = module.num_layers * (2 if module.bidirectional else 1)
    h = numbers(parts, *batch, module.proj_size or module.hidden_size, seed=2)
    return (h, numbers(parts, *batch, module.hidden_size, seed=3)) if module.mode == "LSTM" else h


# ----------------------------------------------------------------------------------------------------------- parameters


@over_options
def test_initial_values_are_those_of_torch_bit_for_bit(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(7)
    theirs = getattr(nn, name)(D, H, **options)
    after = torch.get_rng_state()
    torch.manual_seed(7)
    ours = getattr(recurra, name)(D, H, **options)
    assert torch.equal(after, torch.get_rng_state())
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    torch.testing.assert_close(ours.all_weights, theirs.all_weights, rtol=0, atol=0)


@over_options
def test_it_is_an_instance_of_torchs_class(name: str, options: dict[str, Any]) -> None:
    assert isinstance(getattr(recurra, name)(D, H, **options), getattr(nn, name))


# -------------------------------------------------------------------------------------------------------------- numbers


@over_options
@pytest.mark.parametrize("batch", [1, 3, None])
@pytest.mark.parametrize("given_state", [False, True])
def test_values_and_gradients(name: str, options: dict[str, Any], batch: int | None, given_state: bool) -> None:
    results = []
    for module in pair(name, **options):
        x = (numbers(5, D) if batch is None else sequence(module, 5, batch)).requires_grad_()
        hx = tree_map(Tensor.requires_grad_, states(module, *(() if batch is None else (batch,))))
        y, last = module(x, hx if given_state else None)
        torch.stack([t.square().sum() for t in (y, *tree_leaves(last))]).sum().backward()
        gradients = [t.grad for t in (x, *tree_leaves(hx), *module.parameters())]
        results.append((y, last, gradients))
    close(results[1], results[0])


@over_options
@few
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), given_state=st.booleans())
def test_packed(name: str, options: dict[str, Any], lengths: list[int], given_state: bool) -> None:
    theirs, ours = pair(name, **options)
    packed = pack_padded_sequence(numbers(5, len(lengths), D), torch.tensor(lengths), enforce_sorted=False)
    hx = states(theirs, len(lengths)) if given_state else None
    (y, last), (expected, end) = ours(packed, hx), theirs(packed, hx)
    assert isinstance(y, PackedSequence)
    close(y.data, expected.data)
    close(last, end)
    for field in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        assert torch.equal(getattr(y, field), getattr(expected, field))


@over_options
@few
@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=5), given_state=st.booleans())
def test_lengths_make_packing_unnecessary(
    name: str, options: dict[str, Any], lengths: list[int], given_state: bool
) -> None:
    """Against pack_padded_sequence over the rows that are not empty; an empty row keeps its state and writes zeros."""
    results = []
    hidden = [b for b, n in enumerate(lengths) if n == 0]
    full = [b for b, n in enumerate(lengths) if n]
    theirs, ours = pair(name, **options)
    x, hx = numbers(5, len(lengths), D), states(theirs, len(lengths)) if given_state else None
    seen = x.clone().requires_grad_()
    y, last = ours(seen.transpose(0, 1) if ours.batch_first else seen, hx, lengths=torch.tensor(lengths))
    y = y.transpose(0, 1) if ours.batch_first else y
    before = tree_map(torch.zeros_like, states(theirs, len(lengths))) if hx is None else hx
    assert not y[:, hidden].any()
    close(tree_map(lambda s: s[:, hidden], last), tree_map(lambda s: s[:, hidden], before))
    if not full:
        return
    y.square().sum().backward()
    results.append((y[:, full], tree_map(lambda s: s[:, full], last), seen.grad, [p.grad for p in ours.parameters()]))
    packable = x.clone().requires_grad_()
    packed = pack_padded_sequence(packable[:, full], torch.tensor(lengths)[full], enforce_sorted=False)
    expected, end = theirs(packed, None if hx is None else tree_map(lambda s: s[:, full], hx))
    padded, _ = pad_packed_sequence(expected, total_length=5)
    padded.square().sum().backward()
    results.append((padded, end, packable.grad, [p.grad for p in theirs.parameters()]))
    close(results[0], results[1])


@over_names
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)
@pytest.mark.parametrize(
    ("T", "B", "width", "both"), [(1, 1, 7, False), (2, 5, 1, True), (63, 3, 33, True), (257, 7, 19, False)]
)
def test_exactness(name: str, dtype: torch.dtype, tolerance: float, T: int, B: int, width: int, both: bool) -> None:
    """max|difference| / max|reference| of every output, state and gradient, against torch.nn in double precision."""
    theirs, ours = pair(name, D, width, bidirectional=both)
    ours.to(dtype)
    for mine, exact in zip(ours.parameters(), theirs.parameters(), strict=True):
        exact.data.copy_(mine.data)
    x, lengths = numbers(T, B, D).to(dtype), torch.randint(1, T + 1, (B,))
    seen, packable = x.clone().requires_grad_(), x.double().requires_grad_()
    y, last = ours(seen, lengths=lengths)
    packed, end = theirs(pack_padded_sequence(packable, lengths, enforce_sorted=False))
    expected, _ = pad_packed_sequence(packed, total_length=T)
    results = [(y, expected), *zip(tree_leaves(last), tree_leaves(end), strict=True)]
    for k in (0, 1):
        torch.stack(
            [(r[k] * numbers(*r[k].shape, seed=n).to(r[k].dtype)).sum() for n, r in enumerate(results)]
        ).sum().backward()
    results.append((seen.grad, packable.grad))
    results += [(p.grad, q.grad) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)]
    for mine, exact in results:
        assert (mine - exact).abs().max() <= tolerance * exact.abs().max()


@over_names
def test_second_derivatives(name: str) -> None:
    _, ours = pair(name, bidirectional=True)
    names = [n for n, _ in ours.named_parameters()]
    inputs = [t.requires_grad_() for t in (sequence(ours, 3, 2), *(p.detach().clone() for p in ours.parameters()))]

    def run(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        y, last = torch.func.functional_call(ours, dict(zip(names, weights, strict=True)), (x, None, [3, 1]))
        return (y, *tree_leaves(last))

    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


# -------------------------------------------------------------------------------------------------------------- dropout


def deep(name: str, p: float, layers: int = 2) -> Any:
    torch.manual_seed(3)
    return getattr(recurra, name)(D, 64, layers, dropout=p, dtype=torch.float64)


@over_names
def test_dropout_is_a_function_of_the_default_generator(name: str) -> None:
    layer, x = deep(name, 0.4), numbers(6, 2, D)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(layer(x)[0])
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


@over_names
def test_nothing_is_drawn_without_dropout(name: str) -> None:
    x = numbers(6, 2, D)
    silent = [deep(name, 0.0), deep(name, 0.4).eval()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.nn says that one layer has no dropout
        silent.append(deep(name, 0.4, layers=1))
    for layer in silent:
        before = torch.get_rng_state()
        y, last = layer(x)
        assert torch.equal(before, torch.get_rng_state())
        theirs = getattr(nn, name)(D, 64, layer.num_layers, dtype=torch.float64)
        theirs.load_state_dict(layer.state_dict())
        close((y, last), theirs(x))


@over_names
def test_one_number_is_drawn_for_a_call(name: str) -> None:
    layer, x = deep(name, 0.4, layers=4), numbers(6, 2, D)
    torch.manual_seed(9)
    torch.randint(2**63 - 1, ())
    expected = torch.get_rng_state()
    torch.manual_seed(9)
    layer(x)
    assert torch.equal(expected, torch.get_rng_state())


def copying(width: int, layers: int, dropout: float) -> Any:
    """Every layer after the first copies its input through relu(1 · x), so that masks can be read off the output."""
    layer = recurra.RNN(1, width, layers, nonlinearity="relu", dropout=dropout, dtype=torch.float64)
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
        layer.weight_ih_l0.fill_(1)
        for k in range(1, layers):
            layer.get_parameter(f"weight_ih_l{k}").copy_(torch.eye(width))
    return layer


def test_dropout_drops_between_layers_and_keeps_the_mean() -> None:
    """One mask, on what the first layer wrote."""
    layer = copying(500, 2, 0.25)
    y, _ = layer(torch.ones(40, 2, 1, dtype=torch.float64))
    assert set(y.unique().tolist()) == {0.0, 1 / 0.75}
    assert abs(y.mean() - 1) < 0.01
    assert not torch.equal(y[0], y[1]) and not torch.equal(y[:, 0], y[:, 1])  # a mask for every step and row


def test_dropout_masks_differ_between_layers() -> None:
    layer = copying(200, 3, 0.5)
    y, _ = layer(torch.ones(50, 1, 1, dtype=torch.float64))
    assert abs((y > 0).double().mean() - 0.25) < 0.02  # the same mask twice would keep a half


def test_dropout_of_everything() -> None:
    layer = deep("GRU", 1.0)
    zeros, _ = layer(numbers(4, 2, D))
    close(zeros, layer(numbers(4, 2, D, seed=5))[0])
    assert torch.isfinite(zeros).all()


# ------------------------------------------------------------------------------------ what programs do with the modules


@over_options
def test_weights_load_both_ways(name: str, options: dict[str, Any]) -> None:
    theirs, ours = getattr(nn, name)(D, H, **options), getattr(recurra, name)(D, H, **options)
    assert str(theirs.load_state_dict(ours.state_dict())) == "<All keys matched successfully>"
    x = torch.randn(5, 2, D)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)


@over_names
def test_copying_moving_and_pickling(name: str) -> None:
    theirs, ours = pair(name, num_layers=2)
    x = numbers(5, 2, D)
    expected = theirs(x)
    ours(x)
    close(copy.deepcopy(ours)(x), expected)
    close(pickle.loads(pickle.dumps(ours))(x), expected)  # noqa: S301
    close(ours.float().double()(x), tree_map(lambda t: t, ours(x)))
    torch.testing.assert_close(ours.float()(x.float()), tree_map(Tensor.float, expected), rtol=1e-5, atol=1e-6)
    assert ours.to("meta").weight_ih_l0.is_meta


@over_names
def test_changed_weights_are_seen(name: str) -> None:
    theirs, ours = pair(name)
    x = numbers(5, 2, D)
    ours(x)
    for change in (
        lambda m: m.weight_hh_l0.data.mul_(2),
        lambda m: setattr(m, "weight_ih_l0", nn.Parameter(m.weight_ih_l0.detach() + 1)),
        lambda m: m.load_state_dict({k: v * 0.5 for k, v in m.state_dict().items()}),
        lambda m: nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(m.parameters()) + 0.1, m.parameters()),
    ):
        before = ours(x)[0]
        change(theirs)
        change(ours)
        close(ours(x), theirs(x))
        assert not torch.allclose(ours(x)[0], before)


@over_names
@pytest.mark.parametrize("normed", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_weights_computed_from_others(name: str, normed: Callable[..., nn.Module]) -> None:
    theirs, ours = pair(name)
    for module in (theirs, ours):
        normed(module, "weight_hh_l0")
        for n, p in module.named_parameters():
            if n.endswith(("original0", "_g")):
                p.data.mul_(1.5)
    x = numbers(5, 2, D)
    close(ours(x), theirs(x))
    grads = []
    for module in (theirs, ours):
        module(x)[0].square().sum().backward()
        grads.append({n: p.grad for n, p in module.named_parameters()})
    close(grads[1], grads[0])


@over_names
def test_frozen_weights(name: str) -> None:
    theirs, ours = pair(name)
    grads = []
    for module in (theirs, ours):
        module.weight_hh_l0.requires_grad_(False)
        module(numbers(5, 2, D))[0].sum().backward()
        grads.append([p.grad for p in module.parameters()])
    close(grads[1], grads[0])
    assert grads[1][1] is None


@over_names
def test_a_script_that_never_heard_of_recurra(name: str) -> None:
    """A training loop of torch.nn, twice: the losses are the same."""
    curves = []
    for source in (nn, recurra):
        torch.manual_seed(0)
        layer, head = getattr(source, name)(D, 8, batch_first=True), nn.Linear(8, 1)
        model = nn.ModuleDict({"layer": layer, "head": head}).double()
        optimiser, x = torch.optim.Adam(model.parameters(), 0.05), numbers(4, 6, D)
        curve = []
        for _ in range(5):
            loss = (head(layer(x)[0]) - x.cumsum(1)[..., :1]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            curve.append(float(loss.detach()))
        curves.append(curve)
    assert curves[1] == pytest.approx(curves[0], rel=1e-9)
    assert curves[0][-1] < curves[0][0]


# --------------------------------------------------------------------------------------------------------------- errors


def told_by(call: Callable[[], object]) -> tuple[type[BaseException], str] | None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 (whatever it is, ours must be the same)
        return type(error), str(error)
    return None


CONSTRUCTIONS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((3, 0), {}),
    ((0, 3), {}),
    ((3.0, 4), {}),
    ((3, "4"), {}),
    ((3, 4, 0), {}),
    ((3, 4), {"bias": 1}),
    ((3, 4), {"batch_first": "yes"}),
    ((3, 4), {"dropout": 1.5}),
    ((3, 4), {"dropout": "half"}),
    ((3, 4), {"proj_size": 4}),
    ((3, 4), {"proj_size": -1}),
    ((3, 4), {"nonlinearity": "gelu"}),
    ((3, 4), {"width": 3}),
    ((3,), {}),
]


@over_names
@pytest.mark.parametrize(("arguments", "options"), CONSTRUCTIONS)
def test_constructions_fail_alike(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    theirs = told_by(lambda: getattr(nn, name)(*arguments, **options))
    assert theirs is not None
    assert told_by(lambda: getattr(recurra, name)(*arguments, **options)) == theirs


@over_names
def test_the_warning_about_dropout_in_one_layer(name: str) -> None:
    caught = []
    for source in (nn, recurra):
        with warnings.catch_warnings(record=True) as messages:
            warnings.simplefilter("always")
            getattr(source, name)(D, H, dropout=0.5)
        caught.append([(m.category, str(m.message)) for m in messages])
    assert len(caught[0]) == 1 and caught[0] == caught[1]


def calls(module: Any) -> dict[str, tuple[Any, ...]]:
    """Arguments that torch.nn refuses."""
    parts = module.num_layers * (2 if module.bidirectional else 1)
    lstm = module.mode == "LSTM"
    first = module.proj_size or H

    def state(*shape: int, **options: Any) -> Any:
        h = torch.zeros(*shape, first, dtype=torch.float64, **options)
        return (h, torch.zeros(*shape, H, dtype=torch.float64, **options)) if lstm else h

    x = sequence(module, 5, 2)
    packed = pack_padded_sequence(numbers(5, 2, D), [5, 3])
    return {
        "narrow": (x[..., :2],),
        "float": (x.float(),),
        "integer": (x.long(),),
        "rank 1": (x[0, 0],),
        "rank 4": (x[None],),
        "rank 0": (torch.tensor(1.0, dtype=torch.float64),),
        "no steps": (x[:, :0] if module.batch_first else x[:0],),
        "no steps, unbatched": (x[0, :0],),
        "narrow, unbatched": (x[0, :, :2],),
        "narrow packed": (packed._replace(data=packed.data[:, :2]),),
        "float packed": (packed._replace(data=packed.data.float()),),
        "state of another batch": (x, state(parts, 3)),
        "state of too few layers": (x, state(parts + 1, 2)),
        "state without batch": (x, state(parts)),
        "state with batch for unbatched": (x[0], state(parts, 1)),
        "wrong state for unbatched": (x[0], state(parts + 1)),
        "state of another batch, packed": (packed, state(parts, 3)),
        "state of another dtype": (x, tree_map(Tensor.float, state(parts, 2))),
        "state of another dtype, packed": (packed, tree_map(Tensor.float, state(parts, 2))),
        "state on another device": (x, state(parts, 2, device="meta")),
        "input on another device": (x.to("meta"),),
        "everything on another device": (x.to("meta"), state(parts, 2, device="meta")),
        "no tensor": ([1.0, 2.0],),
        "state no tensor": (x, 5),
        "one state for two": (x, states(module, 2)[0] if lstm else 1),
        "three states": (x, (*states(module, 2), states(module, 2)[0]) if lstm else 1),
        "wide cell state": (x, (states(module, 2)[0], torch.zeros(parts, 2, H + 1)) if lstm else 1),
    }


OVER_CALLS = [(n, o, c) for (n, o), c in itertools.product(OPTIONS, calls(nn.RNN(D, H)))]


@pytest.mark.parametrize(("name", "options", "case"), OVER_CALLS, ids=lambda v: v if isinstance(v, str) else "")
def test_calls_fail_alike(name: str, options: dict[str, Any], case: str) -> None:
    theirs, ours = pair(name, **options)
    arguments = calls(theirs)[case]
    expected = told_by(lambda: theirs(*arguments))
    assert expected is not None, "torch.nn takes it: no error case"
    assert told_by(lambda: ours(*arguments)) == expected


@over_names
def test_no_steps_need_lengths(name: str) -> None:
    _, ours = pair(name)
    y, last = ours(numbers(0, 2, D), lengths=[0, 0])
    assert y.shape == (0, 2, H) and not any(s.any() for s in tree_leaves(last))
    with pytest.raises(InputError, match=r"^lengths\[1\] is 1, but x has 0 steps\."):
        ours(numbers(0, 2, D), lengths=[0, 1])


@over_options
def test_no_rows(name: str, options: dict[str, Any]) -> None:
    theirs, ours = pair(name, **options)
    close(ours(sequence(ours, 4, 0)), theirs(sequence(theirs, 4, 0)))


@over_names
@pytest.mark.parametrize("batch_first", [False, True])
def test_autocast_is_left_to_torch_and_said(name: str, batch_first: bool) -> None:
    theirs, ours = pair(name, dtype=torch.float32, batch_first=batch_first)
    x = torch.randn(4, 2, D)
    packed = pack_padded_sequence(x, [2] * 4 if batch_first else [4] * 2, batch_first=batch_first)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given in (x, packed):
            a, b = (layer(given)[0] for layer in (ours, theirs))
            a, b = (y.data if isinstance(y, PackedSequence) else y for y in (a, b))
            assert a.dtype is b.dtype
            torch.testing.assert_close(a, b, rtol=0, atol=0)
            told = recurra.explain(ours, given)
            assert set(told.executors) == {"torch.nn"} and "autocast is on" in str(told)
            with recurra.strict(), pytest.raises(StrictError, match="autocast is on"):
                ours(given)


@over_names
@pytest.mark.parametrize("shape", [(), (D,), (1, 2, 3, D)])
def test_calls_fail_alike_under_autocast(name: str, shape: tuple[int, ...]) -> None:
    theirs, ours = pair(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, found = (told_by(lambda layer=layer: layer(numbers(*shape))) for layer in (theirs, ours))
    assert expected is not None and found == expected


@pytest.mark.parametrize("name", NAMES)
def test_no_rows_and_states_of_one_tensor(name: str) -> None:
    """Both layers' first states are parts of one tensor: the second's backward must leave the first's graph alone."""
    for module in pair(name, num_layers=2):
        x, hx = numbers(1, 0, D), tree_map(Tensor.requires_grad_, states(module, 0))
        y, _ = module(x, hx)
        y.sum().backward()
        assert all(s.grad.shape == s.shape for s in tree_leaves(hx))
