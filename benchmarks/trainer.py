"""The trainer: a step of the tinyshakespeare recipe against the same in plain PyTorch; reading against training."""

import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.cells import weights
from benchmarks.goals import Shape
from benchmarks.race import Check, Race, Values, Whole
from benchmarks.records import Time
from benchmarks.timing import Contestant, Effort, Measured
from recurra.data.text import Text
from recurra.training.classification import ClassificationSetup
from recurra.training.language import LanguageSetup
from recurra.training.optimiser import BETAS
from recurra.training.settings import Settings
from recurra.training.updates import Updates

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,;:!?'-&$3\n"  # 65, as in tinyshakespeare
LAYERS, EMBEDDING, DROPOUT = 2, 64, 0.4
ROWS, TIMED = 10_000, 20


class Plain(nn.Module):
    """The network of the recipe as one writes it with torch.nn."""

    def __init__(self, cell: str, hidden: int) -> None:
        super().__init__()
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.embedding = nn.Embedding(len(LETTERS) + 1, EMBEDDING)
        self.recurrent = kind(EMBEDDING, hidden, LAYERS, dropout=DROPOUT)
        self.output = nn.Linear(hidden, len(LETTERS) + 1)

    def loss(self, read: Tensor, targets: Tensor, state: object = None) -> tuple[Tensor, object]:
        x = F.dropout(self.embedding(read), DROPOUT, self.training)
        y, state = self.recurrent(x, state)
        scores = self.output(F.dropout(y, DROPOUT, self.training))
        return F.cross_entropy(scores.flatten(0, 1), targets.flatten()), state


def loop(cell: str, shape: Shape) -> Race:
    """One update each: batch, forward, backward, clipping, AdamW; ours in bf16, as the recipe has it."""
    batch, window, hidden = shape
    text = Text("letters", "".join(random.Random(1).choices(LETTERS, k=400_000)))
    setup = LanguageSetup.of(text, wanted := settings(cell, batch, window, hidden))
    full = setup.complete(wanted)
    task = setup.task(full)
    updates, plain = Updates(task, full), Plain(cell, hidden)
    stream = task._stream
    plain.load_state_dict(task.network.state_dict())
    adamw = torch.optim.AdamW(plain.parameters(), lr=0.002, betas=BETAS, weight_decay=0.01, fused=True)
    numbers = {"ours": 0, "fp32": 0, "autocast bf16": 0}

    def ours() -> None:
        updates.step(numbers["ours"])
        numbers["ours"] += 1

    def theirs(label: str, dtype: torch.dtype | None) -> Callable[[], None]:
        state: list[object] = [None]

        def step() -> None:
            plain.train()
            with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
                loss, after = plain.loss(*stream(0, numbers[label] % stream.windows), state[0])
            state[0] = tuple(s.detach() for s in after) if isinstance(after, tuple) else after.detach()  # type: ignore[attr-defined]
            float(loss.detach())
            adamw.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            float(nn.utils.clip_grad_norm_(plain.parameters(), 1.0))
            adamw.step()
            numbers[label] += 1

        return step

    return Race(
        [
            Contestant("ours", ours),
            Contestant("torch", theirs("fp32", None), "fp32"),
            Contestant("torch", theirs("autocast bf16", torch.bfloat16), "autocast bf16"),
        ],
        [
            Check(
                "ours",
                partial(values, cell, batch, window, hidden, "ours"),
                partial(values, cell, batch, window, hidden, "torch"),
            )
        ],
    )


def settings(cell: str, batch: int, window: int, hidden: int, **rest: object) -> Settings:
    given = {"precision": "bf16", "dropout": DROPOUT, "steps": 10**6, "learning_rate": 0.002, **rest}
    return Settings(cell=cell, layers=LAYERS, embedding=EMBEDDING, batch=batch, window=window, hidden=hidden, **given)  # type: ignore[arg-type]


def values(cell: str, batch: int, window: int, hidden: int, who: str) -> Values:
    """Loss and gradients of the first batch in fp32 without dropout, of the same weights."""
    text = Text("letters", "".join(random.Random(1).choices(LETTERS, k=40_000 + batch * window)))
    setup = LanguageSetup.of(text, wanted := settings(cell, batch, window, hidden, precision="fp32", dropout=0.0))
    task = setup.task(setup.complete(wanted))
    network: nn.Module = task.network
    if who == "torch":
        network = Plain(cell, hidden).eval()
        network.load_state_dict(task.network.state_dict())
    loss: Tensor = network.loss(*task._stream(0, 0))[0]  # type: ignore[operator]
    named = weights(network)
    grads = torch.autograd.grad(loss, [*named.values()])
    return {"loss": loss.detach()[None], **{f"gradient of {n}": g for n, g in zip(named, grads, strict=True)}}


class Reading(Whole):
    """Reading 10,000 rows, their vocabulary and batches, against a tenth of the training that follows."""

    def run(self, effort: Effort) -> Measured:
        draw, words = random.Random(1), [f"word{n}" for n in range(5000)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.csv"
            rows = (f"{' '.join(draw.choices(words, k=self.shape[1]))},{draw.choice('ab')}\n" for _ in range(ROWS))
            path.write_text("text,label\n" + "".join(rows))
            begun = time.perf_counter()
            wanted = Settings(hidden=self.shape[2], batch=self.shape[0])
            setup = ClassificationSetup.of(path, wanted)
            full = setup.complete(wanted)
            updates = Updates(setup.task(full), full)
            reading = time.perf_counter() - begun
        updates.step(0)
        begun = time.perf_counter()
        for number in range(1, 1 + TIMED):
            updates.step(number)
        training = (time.perf_counter() - begun) / TIMED * (full.steps or 0)
        found = {"reading": reading, "a tenth of training": training / 10}
        return Measured({name: Time(each, each) for name, each in found.items()})
