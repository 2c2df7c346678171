"""Steps written in many idioms, which must become programs, and steps that must not, with the line that says why."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra import Cell

H, D = 6, 5


class Step(Cell):
    """A cell of fixed widths whose parameters are drawn wide enough for every operation to matter."""

    widths: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__(D, H, **self.widths)
        self.build()
        for p in self.parameters():
            nn.init.normal_(p, std=0.5)
        self.double()

    def build(self) -> None:
        self.W, self.U = nn.Linear(D, H), nn.Linear(H, H)

    def step(self, x, h):
        return torch.tanh(self.W(x) + self.U(h))


class Concatenating(Step):
    def build(self):
        self.W = nn.Linear(D + H, H)

    def step(self, x, h):
        return F.relu(self.W(torch.cat([x, h], -1)))


class Gated(Step):
    def build(self):
        self.W, self.U = nn.Linear(D, 4 * H), nn.Linear(H, 4 * H, bias=False)

    def step(self, x, h, c):
        i, f, g, o = (self.W(x) + self.U(h)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class GatedMethods(Gated):
    def step(self, x, h, c):
        i, f, g, o = (F.linear(x, self.W.weight, self.W.bias) + h @ self.U.weight.t()).split(H, dim=1)
        c = f.sigmoid().mul(c).add(i.sigmoid() * g.tanh())
        return o.sigmoid() * c.tanh(), c


class GatedOneByOne(Step):
    def build(self):
        self.W = nn.ModuleList(nn.Linear(D, H) for _ in range(4))
        self.U = nn.ModuleList(nn.Linear(H, H) for _ in range(4))

    def step(self, x, h, c):
        i, f, g, o = (w(x) + u(h) for w, u in zip(self.W, self.U, strict=True))
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class ResetAfter(Step):
    def build(self):
        self.W, self.U = nn.Linear(D, 3 * H), nn.Linear(H, 3 * H)

    def step(self, x, h):
        xr, xz, xn = self.W(x).chunk(3, -1)
        hr, hz, hn = self.U(h).chunk(3, -1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        return (1 - z) * n + z * h


class ResetBefore(Step):
    def build(self):
        self.W, self.U, self.Un = nn.Linear(D, 3 * H), nn.Linear(H, 2 * H), nn.Linear(H, H)

    def step(self, x, h):
        xr, xz, xn = self.W(x).chunk(3, -1)
        r, z = torch.sigmoid(torch.cat([xr, xz], -1) + self.U(h)).chunk(2, -1)
        return torch.lerp(torch.tanh(xn + self.Un(r * h)), h, z)


class OutputFedBack(Step):
    widths: ClassVar[dict[str, int]] = {"y": D}

    def build(self):
        self.W, self.U, self.V = nn.Linear(D, H), nn.Linear(D, H), nn.Linear(H, D)

    def step(self, x, y):
        return torch.sigmoid(self.V(torch.tanh(self.W(x) + self.U(y))))


class Projected(Step):
    widths: ClassVar[dict[str, int]] = {"h": 4}

    def build(self):
        self.W, self.U, self.R = nn.Linear(D, 4 * H), nn.Linear(4, 4 * H), nn.Linear(H, 4, bias=False)

    def step(self, x, h, c):
        i, f, g, o = (self.W(x) + self.U(h)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return self.R(torch.sigmoid(o) * torch.tanh(c)), c


class Normed(Gated):
    def build(self):
        super().build()
        self.lx, self.lh, self.lc = nn.LayerNorm(4 * H), nn.LayerNorm(4 * H), nn.LayerNorm(H)

    def step(self, x, h, c):
        i, f, g, o = (self.lx(self.W(x)) + self.lh(self.U(h))).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(self.lc(c)), c


class NormedByHand(Step):
    """The formula of layer normalisation, the variance in three ways of writing it."""

    def step(self, x, h):
        a = self.W(x) + self.U(h)
        d = a - a.mean(-1, keepdim=True)
        first = d / torch.sqrt((d**2).mean(-1, keepdim=True) + 1e-3)
        second = d / (a.var(-1, unbiased=False, keepdim=True) + 1)
        return torch.tanh(first + second + 0.01 * (d * d).sum(-1, keepdim=True))


class Minimal(Step):
    def build(self):
        self.W = nn.Linear(D, 2 * H)

    def step(self, x, h):
        z, n = self.W(x).chunk(2, -1)
        return torch.lerp(h, n, z.sigmoid())


class OutputBefore(Step):
    def build(self):
        self.W, self.U, self.Wy, self.Wo = nn.Linear(D, H), nn.Linear(H, H), nn.Linear(H, 3), nn.Linear(D, 3)

    def step(self, x, h):
        return torch.tanh(self.Wy(h) + self.Wo(x)), torch.tanh(self.W(x) + self.U(h))


class OutputOfHoisted(Step):
    """The output reads, after the loop, slices over which the loop would write its gates."""

    def build(self):
        self.W, self.U = nn.Linear(D, 2 * H), nn.Linear(H, H, bias=False)

    def step(self, x, h):
        a, b = self.W(x).chunk(2, -1)
        r = torch.sigmoid(a + self.U(h))
        h = r * h + torch.tanh(b + r)
        return h + a, h


class OutputBesideStates(Step):
    """The output holds the states themselves: rows that the loop makes and that the backward needs are read twice."""

    def build(self):
        self.W, self.U = nn.Linear(D, 4 * H), nn.Linear(H, 4 * H)

    def step(self, x, h, c):
        i, f, g, o = (self.W(x) + self.U(h)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return torch.cat([h, c], -1), h, c


class LinearOutput(Step):
    def build(self):
        super().build()
        self.V = nn.Linear(H, 3)

    def step(self, x, h):
        h = torch.tanh(self.W(x) + self.U(h))
        return self.V(h), h


class Exponential(Step):
    def build(self):
        self.W, self.U = nn.Linear(D, 4 * H), nn.Linear(H, 4 * H)

    def step(self, x, h, c, n, m):
        i, f, z, o = (self.W(x) + self.U(h)).chunk(4, -1)
        f = F.logsigmoid(f)
        new = torch.maximum(f + m, i)
        i, f = torch.exp(i - new), torch.exp(f + m - new)
        c, n = f * c + i * torch.tanh(z), f * n + i
        return torch.sigmoid(o) * c / torch.maximum(n.abs(), torch.ones_like(n)), c, n, new


class Mixed(Step):
    def build(self):
        self.W, self.U = nn.Linear(D, 2 * H), nn.Linear(H, 2 * H, bias=False)
        self.ln, self.a = nn.LayerNorm(H), nn.Parameter(torch.zeros(H))

    def step(self, x, h, c):
        a, b = (self.W(x) + self.U(h)).chunk(2, -1)
        if self.training:
            a = a * 0.5
        a = torch.addcmul(a, h, torch.exp(-torch.exp(self.a)), value=0.3) * 2 + F.silu(b)
        c = torch.where(a > 0, torch.lerp(c, b, 0.3), F.gelu(c)) + F.softplus(b) * F.elu(a) + torch.softmax(a, -1)
        c = c.clamp(-2, 2) + F.leaky_relu(h) + b.pow(2) / (1 + a.abs()) + torch.logaddexp(a, b)
        c = c + F.hardtanh(a).mean(-1, keepdim=True)
        return torch.tanh(self.ln(c)), c / (1 + c.square().sum(-1, keepdim=True)).sqrt()


class InPlace(Step):
    def step(self, x, h):
        a = self.W(x) + 0
        a.mul_(2).add_(self.U(h))
        b = torch.empty_like(a)
        b[:, :2] = a[:, 2:4]
        b[:, 2:] = torch.sigmoid(a[:, 2:])
        b[:, :2] *= 3
        return torch.tanh(b)


class WeightNormed(Step):
    def step(self, x, h):
        return torch.tanh(self.W(x) + F.linear(h, self.U.weight / self.U.weight.norm(dim=1, keepdim=True), self.U.bias))


class LeakyRows(Step):
    def step(self, x, h):
        return 0.9 * h + 0.1 * self.W(x)


class OneByOne(Step):
    def step(self, x, h):
        return F.relu(self.W(x) + self.U.bias * h)


class Einsum(Step):
    def step(self, x, h):
        return torch.tanh(self.W(x) + torch.einsum("bi,ji->bj", h, self.U.weight))


class Idioms(Step):
    def step(self, x, h):
        k = torch.ones(x.size(0), 1, dtype=x.dtype) * 0.5
        m = ((h > 0) & ~(h > 1)).to(x.dtype)
        b = h.new_zeros(x.shape[0], H)
        h = (
            torch.cat([h[..., :2], h[:, 2:]], dim=1) * torch.tensor(0.7, dtype=x.dtype)
            + m * k
            + torch.zeros_like(h)
            + b
        )
        h = F.relu6(h) + h.clip(min=-1) + torch.rsub(h, 1) + torch.sqrt(h * h + 1) + F.mish(h) + F.relu(h).pow(3) * 0.01
        y = h.unsqueeze(1).squeeze(1)
        a, v = y.unbind(-1)[0], y.var(-1, keepdim=True)
        out = self.W(x) + torch.addmm(self.U.bias, y, self.U.weight.T) + a.unsqueeze(1) + v
        out = out + F.glu(torch.cat([y, y], -1)) + y @ self.U.weight + F.normalize(y, dim=-1) + y.roll(2, -1)
        return torch.tanh(out + torch.logsumexp(y, -1, keepdim=True) + y.amin(-1, keepdim=True))


class Zeros(Step):
    """Gradients at zero: norms, absolute values and rectifiers start there."""

    def step(self, x, h):
        return h.abs() + F.relu(h) + h.norm(dim=-1, keepdim=True) + self.W(x) * h.clamp(0, 1)


class PassingThrough(Step):
    """A state that is the last input, and one that never changes."""

    widths: ClassVar[dict[str, int]] = {"last": D}

    def step(self, x, h, last, fixed):
        return torch.tanh(self.W(x - last) + self.U(h) + fixed), x, fixed


class Delayed(Step):
    """The output is the previous state."""

    def step(self, x, h):
        return h, torch.tanh(self.W(x) + self.U(h))


class OutputOfSomeUnits(Step):
    """The output is a view of the next state: nothing is left to compute after the loop."""

    def step(self, x, h):
        h = super().step(x, h)
        return h[:, 1:-1], h


class OutputOfOneUnit(Step):
    def step(self, x, h):
        h = super().step(x, h)
        return h[:, -1:].expand(-1, 3), h


class Overlapping(Step):
    """Columns of a hoisted row are read again beside those that a gate could be written over."""

    def build(self):
        self.W, self.U = nn.Linear(D, H), nn.Linear(H, H - 1, bias=False)

    def step(self, x, h):
        a = self.W(x)
        g = torch.sigmoid(a[:, :-1] + self.U(h))
        return torch.cat([torch.tanh(a[:, 1:] + g), g[:, :1]], -1)


class Constant(Step):
    """Nothing recurs, and the output is the same for every row."""

    def step(self, x, h):
        return self.U.bias.expand(x.shape[0], H), torch.zeros_like(h)  # here


class Masked(Step):
    """A buffer of truth values, and one that stands for a frozen matrix."""

    def build(self):
        super().build()
        self.register_buffer("mask", torch.arange(H) % 2 == 0)
        self.register_buffer("mixing", torch.eye(H).flip(0))

    def step(self, x, h):
        return torch.where(self.mask, torch.tanh(self.W(x) + self.U(h)), h @ self.mixing)


class TorchGRUCell(Step):
    """A cell of torch.nn inside a step."""

    def build(self):
        self.W = nn.GRUCell(D, H)

    def step(self, x, h):
        return self.W(x, h)


class TorchLSTMCell(Step):
    def build(self):
        self.W = nn.LSTMCell(D, H)

    def step(self, x, h, c):
        return self.W(x, (h, c))


class Tied(Step):
    """One weight, used twice."""

    def build(self):
        self.W = nn.Linear(D, H)
        self.U = self.V = nn.Linear(H, H)

    def step(self, x, h):
        return torch.tanh(self.W(x) + self.U(torch.tanh(self.V(h))))


STEPS = [
    Step, Concatenating, Gated, GatedMethods, GatedOneByOne, ResetAfter, ResetBefore, OutputFedBack, Projected, Normed,
    NormedByHand, Minimal, OutputBefore, OutputOfHoisted, OutputBesideStates, LinearOutput, Exponential, Mixed, InPlace,
    WeightNormed, LeakyRows, OneByOne, Einsum, Idioms, Zeros, PassingThrough, Delayed,
    OutputOfSomeUnits, OutputOfOneUnit, Overlapping,
    Masked, Tied, TorchGRUCell, TorchLSTMCell,
]  # fmt: skip


# ---- what must not become a program


class BySize(Step):
    def step(self, x, h):
        return super().step(x, h) / x.shape[0]


class IfTensor(Step):
    def step(self, x, h):
        if h.sum() > 0:  # here
            h = -h
        return super().step(x, h)


class Item(Step):
    def step(self, x, h):
        return super().step(x, h) * (2 if (h[:, 0] > 0).any() else 1)  # here


class Dropping(Step):
    def step(self, x, h):
        return F.dropout(super().step(x, h), 0.5)  # here


class Noisy(Step):
    def step(self, x, h):
        return super().step(x, h) + torch.randn_like(h)  # here


class Unknown(Step):
    def step(self, x, h):
        return torch.cumsum(super().step(x, h), -1)  # here


class LearnedPower(Step):
    def step(self, x, h):
        return torch.sigmoid(super().step(x, h)) ** self.W.bias  # here


class AcrossRows(Step):
    def step(self, x, h):
        return torch.softmax(super().step(x, h), 0)  # here


class BatchMean(Step):
    def step(self, x, h):
        return super().step(x, h - h.mean(0))  # here


class Heads(Step):
    def step(self, x, h):
        return torch.tanh(self.W(x) + torch.softmax(h.view(-1, 2, 3), -1).reshape(-1, 6))  # here


class BatchNormed(Step):
    def build(self):
        super().build()
        self.bn = nn.BatchNorm1d(H)

    def step(self, x, h):
        return self.bn(super().step(x, h))  # here


class Counting(Step):
    n = 0

    def step(self, x, h):
        self.n += 1  # here
        return super().step(x, h) * self.n


class Remembering(Step):
    def build(self):
        super().build()
        self.seen = []

    def step(self, x, h):
        self.seen.append(1)
        return super().step(x, h)


class WritingBuffer(Step):
    def build(self):
        super().build()
        self.register_buffer("k", torch.ones(H))

    def step(self, x, h):
        self.k.add_(1)  # here
        return super().step(x, h) * self.k


class WritingRow(Step):
    def step(self, x, h):
        h = h.clone()
        h[0] = 0  # here
        return super().step(x, h)


class Numpy(Step):
    def step(self, x, h):
        return torch.as_tensor(h.detach().numpy()) + self.W(x)  # here


class Stopping(Step):
    def step(self, x, h):
        return super().step(x, h.detach())  # here


class WithoutGradients(Step):
    def step(self, x, h):
        with torch.no_grad():
            a = torch.sigmoid(h)  # here
        return super().step(x, a)


class ClosedOver(Step):
    def step(self, x, h):
        return super().step(x, h) * _OUTSIDE  # here


class Hooked(Step):
    def build(self):
        super().build()
        self.U.register_forward_hook(lambda *_: None)


class Half(Step):
    def step(self, x, h):
        return super().step(x, h).float().double()  # here


_OUTSIDE = torch.ones(H, dtype=torch.double)


class HookOnGradient(Step):
    def step(self, x, h):
        h = super().step(x, h)
        h.register_hook(lambda g: g.clamp(-1, 1))  # here
        return h


class Data(Step):
    def step(self, x, h):
        return super().step(x, h.data)  # here


class AsksRequiresGrad(Step):
    def step(self, x, h):
        return super().step(x, h) * (2 if x.requires_grad else 1)  # here


class AsksGraph(Step):
    def step(self, x, h):
        return super().step(x, h) * (2 if h.grad_fn is None else 1)  # here


class Swallowing(Step):
    def step(self, x, h):
        try:
            factor = 2 if h.sum() > 0 else 1  # here
        except Exception:  # noqa: BLE001 (what users write)
            factor = 3
        return super().step(x, h) * factor


class OneRow(Step):
    def step(self, x, h):
        return super().step(x, h) * (2 if len(x) == 1 else 1)


class ManyRows(Step):
    def step(self, x, h):
        return super().step(x, h) * (2 if len(x) > 2 else 1)


class FailsOnOneRow(Step):
    def step(self, x, h):
        rows = super().step(x, h).squeeze()
        return rows + 0 * rows.sum(1, keepdim=True)


class ConstantState(Step):
    def step(self, x, h):
        return torch.ones_like(h)  # here


class ConstantOutput(Step):
    def step(self, x, h):
        return torch.ones(len(x), 3, dtype=x.dtype), super().step(x, h)  # here


class WeightAsState(Step):
    def step(self, x, h):
        return self.W.bias.expand(len(x), -1)  # here


class EverySecond(Step):
    def step(self, x, h):
        h = super().step(x, h)
        return torch.cat([h[:, ::2], h[:, 1::2]], -1)  # here


@dataclass(frozen=True)
class Refused:
    """A step that stays on scan, for a reason with this word in it; the line marked "here" must be named."""

    make: type[Step]
    word: str

    def __str__(self) -> str:
        return self.make.__name__


REFUSED = [
    Refused(BySize, "same program"),
    Refused(IfTensor, "value"),
    Refused(Item, "value"),
    Refused(Dropping, "random numbers (bernoulli); wrappers such as recurra.RecurrentDropout"),
    Refused(Noisy, "random"),
    Refused(Unknown, "cumsum is not among a program's operations; write it with"),
    Refused(LearnedPower, "pow has no operation, or not with these arguments; write torch.exp(p * torch.log(h))"),
    Refused(AcrossRows, "across the rows"),
    Refused(BatchMean, "across the rows"),
    Refused(EverySecond, "slice takes one column in 2, and a program's slices have no gaps; order the columns by"),
    Refused(Heads, "take heads as slices of a row"),
    Refused(BatchNormed, "in place"),
    Refused(Counting, "'n'"),
    Refused(Remembering, "changes an attribute"),
    Refused(WritingBuffer, "in place"),
    Refused(WritingRow, "across the rows"),
    Refused(Numpy, "gradients"),
    Refused(Stopping, "gradients"),
    Refused(WithoutGradients, "gradients"),
    Refused(ClosedOver, "buffer"),
    Refused(Hooked, "hooks"),
    Refused(Half, "float32"),
    Refused(HookOnGradient, "register_hook"),
    Refused(Data, ".data"),
    Refused(AsksRequiresGrad, "requires_grad"),
    Refused(AsksGraph, "grad_fn"),
    Refused(Swallowing, "value"),
    Refused(OneRow, "one row"),
    Refused(ManyRows, "one row"),
    Refused(FailsOnOneRow, "one row"),
    Refused(Constant, "neither on x"),
    Refused(ConstantState, "neither on x"),
    Refused(ConstantOutput, "neither on x"),
    Refused(WeightAsState, "neither on x"),
]


def random_states(cell: Cell, B: int, grad: bool = True) -> tuple[Tensor, ...]:
    """States (B, n) in double precision."""
    return tuple(torch.randn(B, n, dtype=torch.double, requires_grad=grad) for n in cell.state_sizes.values())
