"""A language model from Python: python examples/language.py any.txt (without a file: the demonstration text)."""

import sys

import recurra


def main(data: str = "demo") -> None:
    run = recurra.train(data, hidden=64, steps=60, eval_interval=30, sample_length=80)
    model = recurra.load(run.path)
    for piece in model.stream("The ", length=200, temperature=0.7, seed=1):
        print(piece, end="", flush=True)
    print(f"\n\n{run.verdict}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
