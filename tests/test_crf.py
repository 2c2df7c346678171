"""The conditional random field against the sum and the maximum over all paths, written out."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import recurra
from recurra.tasks.crf import Independent, LinearChain, TagModel, viterbi


def drawn(tags: int, steps: int, batch: int, seed: int, holes: bool) -> tuple[LinearChain, Tensor, Tensor]:
    """A field with weights of some size, in fp64; with holes some tags may not follow some, but one path is left."""
    draw = np.random.default_rng(seed)
    allowed = None
    if holes:
        allowed = draw.random((tags + 1, tags + 1)) < 0.6
        allowed[0, :] = allowed[:, 0] = True
    chain = LinearChain(tags, allowed).double()
    with torch.no_grad():
        for weight in chain.parameters():
            weight.copy_(torch.from_numpy(draw.normal(0, 2, weight.shape)))
    lengths = torch.from_numpy(draw.integers(1, steps + 1, batch))
    lengths[0] = steps
    return chain, torch.from_numpy(draw.normal(0, 3, (steps, batch, tags))), lengths


def paths(chain: LinearChain, e: Tensor, length: int) -> dict[tuple[int, ...], float]:
    """The score of every path of one sentence, from the equation; -inf where it is forbidden."""
    closed = chain._forbidden.astype(float)
    first, last = chain.first.tolist(), chain.last.tolist()
    between = chain.forward_algorithm.cell.get_parameter("transitions").tolist()
    found = {}
    for path in itertools.product(range(chain.tags), repeat=length):
        score = first[path[0]] + closed[-1, path[0]] + last[path[-1]] + closed[path[-1], -1]
        score += sum(float(e[t, tag]) for t, tag in enumerate(path))
        score += sum(between[a][b] + closed[a, b] for a, b in itertools.pairwise(path))
        found[path] = float(score)
    return found


CASES = given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 10_000), st.booleans())


@CASES
@settings(max_examples=60)
def test_partition_marginals_and_best_path_are_those_of_all_paths(
    tags: int, steps: int, batch: int, seed: int, holes: bool
) -> None:
    chain, e, lengths = drawn(tags, steps, batch, seed, holes)
    partition, marginals, decoded = (
        chain.log_partition(e, lengths),
        chain.marginals(e, lengths),
        chain.decode(e, lengths),
    )
    for b, length in enumerate(lengths.tolist()):
        scores = paths(chain, e[:, b], length)
        total = float(np.logaddexp.reduce(list(scores.values())))
        assert partition[b].item() == pytest.approx(total)
        shares = torch.zeros(length, tags, dtype=torch.double)
        for path, score in scores.items():
            for t, tag in enumerate(path):
                shares[t, tag] += np.exp(score - total)
        torch.testing.assert_close(marginals[:length, b], shares)
        assert not marginals[length:, b].any()
        best = max(scores, key=lambda path: scores[path])
        assert tuple(decoded[:length, b]) == best
        y = torch.zeros(steps, batch, dtype=torch.long)
        y[:length, b] = torch.tensor(best)
        assert chain.score(e, y, lengths)[b].item() == pytest.approx(scores[best])
        assert chain.loss(e, y, lengths)[b].item() == pytest.approx(total - scores[best], abs=1e-9)


@pytest.mark.usefixtures("strict")
def test_gradients_are_those_of_the_plain_loop() -> None:
    """Of the loss by every weight and score; the forward algorithm runs on the native machine, forward and backward."""
    chain, e, lengths = drawn(5, 7, 4, 3, True)
    e.requires_grad_()
    y = torch.zeros(7, 4, dtype=torch.long)
    leaves = [e, *chain.parameters()]
    found = torch.autograd.grad(chain.loss(e, y, lengths).sum(), leaves)
    cell = chain.forward_algorithm.cell
    first, last = chain._boundaries()
    total = e.new_zeros(())
    for b, length in enumerate(lengths.tolist()):
        a = e[0, b] + first
        for t in range(1, length):
            a = e[t, b] + torch.logsumexp(
                a[:, None] + cell.get_parameter("transitions") + cell.get_buffer("forbidden"), 0
            )
        total = total + torch.logsumexp(a + last, 0)
    wanted = torch.autograd.grad(total - chain.score(e, y, lengths).sum(), leaves)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_scores_of_any_size_in_fp32(scale: float) -> None:
    """Sums of exponentials neither overflow nor leave the numbers, though only a bad tag may be followed."""
    chain = LinearChain(2, np.array([[1, 0, 1], [1, 1, 1], [1, 1, 1]], np.bool_))  # 1 never follows 0
    e = torch.tensor([[[scale, -scale]], [[-scale, scale]]], requires_grad=True)
    loss = chain.loss(e, torch.tensor([[1], [1]]), torch.tensor([2]))
    loss.sum().backward()
    assert e.grad is not None and e.grad.isfinite().all() and loss.isfinite().all()
    assert chain.decode(e, torch.tensor([2]))[:, 0].tolist() in ([0, 0], [1, 1])


def test_what_is_forbidden_is_never_decoded() -> None:
    """Whatever the scores and the weights say."""
    allowed = np.array([[1, 0, 1], [1, 1, 1], [1, 0, 1]], np.bool_)  # only 1 leads to 1, and nothing begins with it
    models: list[TagModel] = [LinearChain(2, allowed), Independent(2, allowed)]
    for model in models:
        e = torch.zeros(3, 1, 2)
        e[..., 1] = 1e6
        assert model.decode(e, torch.tensor([3]))[:, 0].tolist() == [0, 0, 0]
    free = Independent(2, None)
    assert free.decode(e, torch.tensor([3]))[:, 0].tolist() == [1, 1, 1]
    assert free.loss(e, torch.ones(3, 1, dtype=torch.long), torch.tensor([2])).item() == pytest.approx(0)
    torch.testing.assert_close(free.marginals(e, torch.tensor([3])), e.softmax(-1))


def test_of_equal_paths_the_lower_numbers() -> None:
    nothing = np.zeros(3, np.float32)
    found = viterbi(np.zeros((4, 2, 3), np.float32), np.array([4, 2]), nothing, np.zeros((3, 3), np.float32), nothing)
    assert not found.any()


def test_the_forward_algorithm_is_a_cell() -> None:
    chain, e, _ = drawn(4, 6, 2, 0, False)
    told = recurra.explain(chain.forward_algorithm, e)
    assert "native machine" in str(told) and "fp64" in str(told)
