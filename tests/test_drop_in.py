"""RNN, LSTM and GRU in the place of torch.nn's: same parameters, same numbers, same gradients, same uses."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import alike, numbers
from drop_in import NAMES, D, H, over_names, over_options, pair, sequence, states, strictly
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils._pytree import tree_leaves, tree_map

import recurra

few = settings(max_examples=10)
pytestmark = strictly


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
    alike(results[1], results[0])


@over_options
@few
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), given_state=st.booleans())
def test_packed(name: str, options: dict[str, Any], lengths: list[int], given_state: bool) -> None:
    theirs, ours = pair(name, **options)
    packed = pack_padded_sequence(numbers(5, len(lengths), D), torch.tensor(lengths), enforce_sorted=False)
    hx = states(theirs, len(lengths)) if given_state else None
    (y, last), (expected, end) = ours(packed, hx), theirs(packed, hx)
    assert isinstance(y, PackedSequence)
    alike(y.data, expected.data)
    alike(last, end)
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
    alike(tree_map(lambda s: s[:, hidden], last), tree_map(lambda s: s[:, hidden], before))
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
    alike(results[0], results[1])


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
    alike(copy.deepcopy(ours)(x), expected)
    alike(pickle.loads(pickle.dumps(ours))(x), expected)  # noqa: S301
    alike(ours.float().double()(x), tree_map(lambda t: t, ours(x)))
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
        alike(ours(x), theirs(x))
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
    alike(ours(x), theirs(x))
    grads = []
    for module in (theirs, ours):
        module(x)[0].square().sum().backward()
        grads.append({n: p.grad for n, p in module.named_parameters()})
    alike(grads[1], grads[0])


@over_names
def test_frozen_weights(name: str) -> None:
    theirs, ours = pair(name)
    grads = []
    for module in (theirs, ours):
        module.weight_hh_l0.requires_grad_(False)
        module(numbers(5, 2, D))[0].sum().backward()
        grads.append([p.grad for p in module.parameters()])
    alike(grads[1], grads[0])
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


@over_options
def test_no_rows(name: str, options: dict[str, Any]) -> None:
    theirs, ours = pair(name, **options)
    alike(ours(sequence(ours, 4, 0)), theirs(sequence(theirs, 4, 0)))


@pytest.mark.parametrize("name", NAMES)
def test_no_rows_and_states_of_one_tensor(name: str) -> None:
    """Both layers' first states are parts of one tensor: the second's backward must leave the first's graph alone."""
    for module in pair(name, num_layers=2):
        x, hx = numbers(1, 0, D), tree_map(Tensor.requires_grad_, states(module, 0))
        y, _ = module(x, hx)
        y.sum().backward()
        assert all(s.grad.shape == s.shape for s in tree_leaves(hx))


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_gradients_share_no_memory(kind):
    """Clipping scales gradients in place: one tensor for two biases would be scaled twice."""
    ours, theirs = getattr(recurra, kind)(5, 6), getattr(torch.nn, kind)(5, 6)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(7, 3, 5)
    for layer in (ours, theirs):
        layer(x)[0].sum().backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 0.1)
    assert len({p.grad.data_ptr() for p in ours.parameters()}) == len(list(ours.parameters()))
    for mine, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, expected.grad)
