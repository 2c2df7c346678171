"""RNN, LSTM and GRU in the place of torch.nn's: same words when something is wrong."""

import itertools
import warnings
from typing import Any

import pytest
import torch
from checks import numbers
from drop_in import OPTIONS, D, H, over_names, pair, sequence, states, strictly, told_by
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._pytree import tree_leaves, tree_map

import recurra
from recurra import InputError

pytestmark = strictly


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


@over_names
def test_what_torch_nn_has_no_words_for(name: str) -> None:
    layer = getattr(recurra, name)(D, H)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about nested tensors
        nested = torch.nested.nested_tensor([torch.randn(3, D), torch.randn(2, D)])
    for lengths in (None, [3, 2]):
        with pytest.raises(InputError) as told:
            layer(nested, lengths=lengths)
        assert str(told.value) == (
            f"input is a nested tensor, but {name} takes rows of one length. "
            "Pass input.to_padded_tensor(0.0) and the lengths."
        )
    with pytest.raises(TypeError, match=r"^forward\(\) got an unexpected keyword argument 'lenghts'"):
        layer(torch.zeros(2, 3, D), lenghts=[2, 2, 2])
