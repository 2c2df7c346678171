"""Numbers of a text as batches that follow one another along it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recurra.data.keys import key
from recurra.data.numbers import Numbers
from recurra.errors import DataError


class Stream:
    """A text as `batch` lanes read side by side, window after window, each window going on where the last one ended.

    Lane b of epoch e starts at symbol (r_e + b L) mod N, where L = N // batch and the rotation r_e is a function of
    (seed, epoch) alone. So the order of the data is known at any step without having walked there, and windows are cut
    at different places in every epoch. Seen as a circle the text has one seam, where its end meets its start.
    """

    def __init__(self, numbers: Numbers, batch: int, window: int, seed: int, unit: str = "characters") -> None:
        lane = len(numbers) // batch
        if len(numbers) <= window:
            raise DataError(
                f"The training text has {len(numbers)} {unit} but one window needs {window + 1} (window={window} "
                f"and the one after it); give a longer text or window={max(1, len(numbers) - 1)}."
            )
        if lane < window:
            raise DataError(
                f"The training text has {len(numbers)} {unit} but one step reads batch={batch} times "
                f"window={window} = {batch * window}; give a longer text, or a smaller batch or window."
            )
        self.numbers, self.batch, self.window, self.seed = numbers, batch, window, seed
        self.windows = lane // window
        self._lane = lane

    def __call__(self, epoch: int, index: int, lanes: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Window `index` of `epoch`: the symbols read and those to be predicted, each (T, B), of some lanes or all."""
        start = key(self.seed, "epoch", epoch) % len(self.numbers) + index * self.window
        block = np.stack([self._from(start + b * self._lane) for b in range(self.batch)[lanes]], 1)
        return torch.from_numpy(block[:-1]), torch.from_numpy(block[1:])

    def _from(self, start: int) -> NDArray[np.int64]:
        """The window and the symbol after it, (T + 1,), from a place on the circle."""
        start %= len(self.numbers)
        found = self.numbers[start : start + self.window + 1]
        missing = self.window + 1 - len(found)
        return np.concatenate([found, self.numbers[:missing]]) if missing else found
