"""PyTorch's own tests of RNN, LSTM and GRU, pointed at the drop-in classes.

Modules, inputs, reference functions and error inputs come from torch.testing._internal.common_modules; the checks are
those of PyTorch's test/test_modules.py, written again because that file is no part of the package.
"""

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

import recurra

pytest.importorskip("expecttest", reason="torch.testing._internal needs expecttest")
from torch.testing._internal.common_modules import ModuleErrorEnum, ModuleInfo, module_db
from torch.testing._internal.common_utils import freeze_rng_state

CLASSES: dict[type[nn.Module], type[nn.Module]] = {nn.RNN: recurra.RNN, nn.LSTM: recurra.LSTM, nn.GRU: recurra.GRU}
INFOS: list[ModuleInfo] = [info for info in module_db if info.module_cls in CLASSES]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
pytestmark = [
    pytest.mark.usefixtures("strict"),  # a fall-back to scan is an error here
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:dropout option adds dropout"),
]

over_modules = pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
over_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
over_devices = pytest.mark.parametrize("device", DEVICES)
over_training = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def samples(info: ModuleInfo, device: str, dtype: torch.dtype, training: bool, grad: bool = False) -> Iterator[Any]:
    """(module of ours, its sample, arguments of forward), with packed sequences where PyTorch has them."""
    options = {} if info.module_cls is nn.LSTM else {"with_packed_sequence": True}
    made = info.module_inputs_func(info, device=device, dtype=dtype, requires_grad=grad, training=training, **options)
    for sample in made:
        arguments = sample.constructor_input
        module = CLASSES[info.module_cls](*arguments.args, **arguments.kwargs).to(device).to(dtype).train(training)
        yield module, sample, sample.forward_input


def same(actual: object, expected: object) -> None:
    torch.testing.assert_close(tree_leaves(actual), tree_leaves(expected), rtol=1e-5, atol=1e-6)


def of_numbers(leaf: object) -> bool:
    """A packed sequence also holds sizes and indices, or None."""
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def numbers_of(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if of_numbers(leaf)]


def test_the_three_modules_are_found_and_have_samples() -> None:
    assert {info.module_cls for info in INFOS} == set(CLASSES)
    for info in INFOS:
        assert len(list(samples(info, "cpu", torch.float32, True))) >= 16
        assert info.module_error_inputs_func is not None
        errors = info.module_error_inputs_func(info, "cpu", torch.float32, False, True)
        assert len(errors) >= 10


@over_modules
@over_devices
@over_dtypes
@over_training
def test_forward(info: ModuleInfo, device: str, dtype: torch.dtype, training: bool) -> None:
    for module, sample, given in samples(info, device, dtype, training):
        with freeze_rng_state():
            outputs = module(*given.args, **given.kwargs)
        packed = not isinstance(given.args[0], Tensor)
        if sample.reference_fn is not None and not packed:
            same(outputs, sample.reference_fn(module, *given.args, **given.kwargs))
        theirs = info.module_cls(*sample.constructor_input.args, **sample.constructor_input.kwargs)
        theirs.to(device).to(dtype).train(training).load_state_dict(module.state_dict())
        same(outputs, theirs(*given.args, **given.kwargs))


@over_modules
@over_devices
@over_dtypes
def test_factory_kwargs(info: ModuleInfo, device: str, dtype: torch.dtype) -> None:
    for _, sample, _ in samples(info, "cpu", torch.float32, True):
        arguments = sample.constructor_input
        module = CLASSES[info.module_cls](*arguments.args, **arguments.kwargs, device=device, dtype=dtype)
        assert list(module.parameters())
        for p in module.parameters():
            assert p.device.type == device and p.dtype == dtype


@over_modules
@over_devices
@over_dtypes
@over_training
def test_errors(info: ModuleInfo, device: str, dtype: torch.dtype, training: bool) -> None:
    assert info.module_error_inputs_func is not None
    for error in info.module_error_inputs_func(info, device, dtype, False, training):
        sample = error.module_error_input
        made, given = sample.constructor_input, sample.forward_input
        if error.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(error.error_type, match=error.error_regex):
                CLASSES[info.module_cls](*made.args, **made.kwargs)
        else:
            module = CLASSES[info.module_cls](*made.args, **made.kwargs)
            with pytest.raises(error.error_type, match=error.error_regex):
                module(*given.args, **given.kwargs)


@over_modules
@over_training
def test_pickle_and_save_load(info: ModuleInfo, training: bool) -> None:
    for module, _, given in samples(info, "cpu", torch.float64, training):
        with freeze_rng_state():
            expected = module(*given.args, **given.kwargs)
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), loaded):  # noqa: S301
            with freeze_rng_state():
                same(twin(*given.args, **given.kwargs), expected)
        fresh = copy.deepcopy(module)
        for p in fresh.parameters():
            p.data.zero_()
        fresh.load_state_dict(module.state_dict())
        same(fresh(*given.args, **given.kwargs), expected)


@over_modules
def test_repr(info: ModuleInfo) -> None:
    for module, sample, _ in samples(info, "cpu", torch.float32, True):
        arguments = sample.constructor_input
        assert repr(module) == str(module) == repr(info.module_cls(*arguments.args, **arguments.kwargs))


def _strided(tensor: Tensor) -> Tensor:
    """The same numbers, not contiguous."""
    wide = torch.stack([torch.full_like(tensor, float("nan")), tensor], -1)
    return wide[..., 1]


def _run(module: nn.Module, args: Any) -> tuple[Any, list[Tensor | None]]:
    module.zero_grad()
    args = tree_map(lambda t: t.detach().requires_grad_() if of_numbers(t) else t, args)  # leaves, of the same strides
    with freeze_rng_state():
        outputs = module(*args)
    torch.stack([t.square().sum() for t in numbers_of(outputs)]).sum().backward()
    return outputs, [t.grad for t in (*numbers_of(args), *module.parameters())]


@over_modules
@over_training
@over_devices
def test_non_contiguous_tensors(info: ModuleInfo, training: bool, device: str) -> None:
    for module, _, given in samples(info, device, torch.float64, training, grad=True):
        if not isinstance(given.args[0], Tensor):
            continue
        args = given.args
        expected = _run(module, args)
        same(_run(module, tree_map(_strided, args)), expected)
        same(_run(module, (_strided(args[0]), *args[1:])), expected)
        same(_run(module, (args[0], *tree_map(_strided, args[1:]))), expected)


def _check_gradients(info: ModuleInfo, check: Callable[..., bool], training: bool) -> None:
    """A tenth of the samples or so; the step is prime to the cycles in which the options vary."""
    checked = 0
    every = 7 if info.module_cls is nn.RNN else 5
    for k, (module, _, given) in enumerate(samples(info, "cpu", torch.float64, training, grad=True)):
        if k % every:
            continue
        names = [name for name, _ in module.named_parameters()]
        leaves, spec = torch.utils._pytree.tree_flatten(given.args)
        weights = [p.detach().clone() for p in module.parameters()]

        def run(
            *tensors: Tensor, module: Any = module, names: Any = names, leaves: Any = leaves, spec: Any = spec
        ) -> tuple[Tensor, ...]:
            rest = iter(tensors)
            args = [next(rest) if of_numbers(t) else t for t in leaves]
            replaced = dict(zip(names, rest, strict=True))
            with freeze_rng_state():
                result = torch.func.functional_call(module, replaced, torch.utils._pytree.tree_unflatten(args, spec))
            return tuple(numbers_of(result))

        inputs = [t.detach().clone().requires_grad_() for t in (*numbers_of(leaves), *weights)]
        assert check(run, inputs, fast_mode=True)
        checked += 1
    assert checked >= 6


@over_modules
@over_training
def test_grad(info: ModuleInfo, training: bool) -> None:
    _check_gradients(info, torch.autograd.gradcheck, training)


@over_modules
def test_gradgrad(info: ModuleInfo) -> None:
    _check_gradients(info, torch.autograd.gradgradcheck, True)


@over_modules
@over_training
def test_forward_mode_and_vmap(info: ModuleInfo, training: bool) -> None:
    for k, (module, _, given) in enumerate(samples(info, "cpu", torch.float64, training)):
        if k % 4 or not isinstance(given.args[0], Tensor):
            continue
        x, rest = given.args[0], given.args[1:]
        y, tangent = torch.func.jvp(lambda x, m=module, r=rest: m(x, *r)[0], (x,), (torch.ones_like(x),))
        nudged = module(x + 1e-7, *rest)[0]
        torch.testing.assert_close(tangent, (nudged - y) / 1e-7, rtol=1e-4, atol=1e-5)
        many = torch.stack([x, 2 * x])
        same(
            torch.func.vmap(lambda x, m=module, r=rest: m(x, *r)[0])(many),
            torch.stack([module(v, *rest)[0] for v in many]),
        )


@over_modules
def test_train_and_eval_agree_without_dropout(info: ModuleInfo) -> None:
    for module, _, given in samples(info, "cpu", torch.float64, True):
        same(module.train()(*given.args, **given.kwargs), module.eval()(*given.args, **given.kwargs))


@over_modules
@pytest.mark.parametrize("swap", [True, False])
@torch.no_grad()  # a graph that is alive holds on to the weights, which then cannot be swapped
def test_to_and_to_empty(info: ModuleInfo, swap: bool) -> None:
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(swap)
    try:
        for module, _, given in samples(info, "cpu", torch.float32, True):
            expected = module(*given.args)
            state = {k: v.clone() for k, v in module.state_dict().items()}
            module.to("meta").to_empty(device="cpu")
            for name, p in module.named_parameters():
                p.copy_(state[name])
            same(module(*given.args), expected)
            double = tree_map(lambda t: t.double() if of_numbers(t) else t, given.args)
            module.double()(*double)
            assert {p.dtype for p in module.parameters()} == {torch.float64}
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


@over_modules
def test_inputs_are_left_as_they_are(info: ModuleInfo) -> None:
    for module, _, given in samples(info, "cpu", torch.float64, True):
        kept = copy.deepcopy(given.args)
        module(*given.args)
        same(given.args, kept)


@over_modules
@pytest.mark.skipif(len(DEVICES) == 1, reason="no GPU")
def test_cpu_gpu_parity(info: ModuleInfo) -> None:
    for module, _, given in samples(info, "cpu", torch.float64, True, grad=True):
        moved = tree_map(lambda t: t.detach().cuda() if of_numbers(t) else t, given.args)
        outputs, gradients = _run(module, given.args)
        outputs_gpu, gradients_gpu = _run(copy.deepcopy(module).cuda(), moved)
        same([t.cpu() for t in numbers_of(outputs_gpu)], numbers_of(outputs))
        same([g.cpu() if g is not None else None for g in gradients_gpu], gradients)
