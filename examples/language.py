"""A language model from Python: python examples/language.py my.txt [steps]. Without a text: the demonstration text."""

import sys

import recurra


def main(data: str = "demo", steps: str = "1000") -> None:
    run = recurra.train(data, hidden=128, steps=int(steps))
    model = recurra.load(run.path)
    for piece in model.stream("The ", length=200, temperature=0.7, seed=1):
        print(piece, end="", flush=True)
    print(f"\n\n{run.verdict}\n{run.path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
