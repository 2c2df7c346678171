"""python -m benchmarks.ends: where a character model ends that is trained in each precision, beside fp32.

The text is the demonstration's; of a seed, weights at the start, batches and their order are the same in every
precision. The measure is the validation loss after the last step, in nats a character, mean of three seeds. The limit
is 0.01 nats from fp32. It takes some minutes.
"""

import math
import sys
import tempfile
from pathlib import Path
from statistics import mean

import recurra
from benchmarks.machine import processor
from recurra.machine.precision import to_be_had
from recurra.training import Observer

SEEDS = (0, 1, 2)
LIMIT = 0.01
STEPS = 600
TRAINED = ("fp32-fast", "bf16")  # fp64 differs by rounding alone, and int8 trains nothing


def end(precision: str, seed: int, steps: int = STEPS) -> float:
    """Nats a character on the validation text after the last step."""
    with tempfile.TemporaryDirectory() as place:
        run = recurra.train(
            "demo", out=Path(place) / "run", observer=Observer(), precision=precision, seed=seed, steps=steps,
            hidden=256, batch=16, window=64, eval_interval=steps, dropout=0.0, sample_length=0,
        )  # fmt: skip
    assert run.best is not None
    return run.best.value * math.log(2)


def main() -> int:
    """Prints a row a precision; 1 where one ends too far from fp32."""
    names = ["fp32", *[name for name in TRAINED if name in to_be_had()]]
    print(f"LSTM of 256 units, {STEPS} steps of 16 x 64 characters of demo, on {processor()}; nats a character\n")
    print(
        f"| precision | {' | '.join(f'seed {s}' for s in SEEDS)} | mean | from fp32 |\n|---|{'---|' * (len(SEEDS) + 2)}"
    )
    means: dict[str, float] = {}
    for name in names:
        ends = [end(name, seed) for seed in SEEDS]
        means[name] = mean(ends)
        cells = [f"{e:.4f}" for e in (*ends, means[name])]
        print(f"| {name} | {' | '.join(cells)} | {means[name] - means['fp32']:+.4f} |", flush=True)
    for name in TRAINED:
        if name not in names:
            print(f"| {name} | not to be had on this processor |")
    return int(any(abs(m - means["fp32"]) > LIMIT for m in means.values()))


if __name__ == "__main__":
    sys.exit(main())
