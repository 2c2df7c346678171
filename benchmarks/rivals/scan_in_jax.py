"""LSTM and GRU in JAX: `lax.scan` over the textbook step, forward and backward in one jitted function."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.records import Task

Arrays = Mapping[str, np.ndarray]
States = tuple[Any, ...]  # of JAX's arrays


def hold(threads: int) -> None:
    """XLA's pool gets as many threads as there are processors that this process may use."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))


def variants(task: Task, given: Arrays) -> Mapping[str, Callable[[], "Scan"]]:
    hold(task.threads)
    return {
        "lax.scan": lambda: Scan(task.cell, given, hoisted=False),
        "lax.scan after one input product": lambda: Scan(task.cell, given, hoisted=True),
    }


class Scan:
    """Weights, gate order and gradients as in torch.nn; hoisted: the input product is made before the loop."""

    def __init__(self, cell: str, given: Arrays, hoisted: bool) -> None:
        import jax  # not before hold(), which it reads

        self.jax, self.jnp = jax, jax.numpy
        self.step: Callable[[States, Any, Any], States] = {"lstm": self.lstm, "gru": self.gru}[cell]
        self.states = {"lstm": 2, "gru": 1}[cell]
        self.hoisted = hoisted
        arrays = {name: self.jnp.asarray(each) for name, each in given.items()}
        self.x = arrays.pop("input")
        self.cotangents = [arrays.pop(f"cotangent {n}") for n in range(self.states + 1)]
        self.weights = arrays
        dy, *last = self.cotangents
        self.dense = [dy, *(self.jnp.zeros_like(each) for each in last)]  # nothing but the outputs has a gradient
        self.both = jax.jit(self.run)

    def lstm(self, state: States, seen: Any, told: Any) -> States:
        """Gates i, f, g, o."""
        sigmoid, tanh = self.jax.nn.sigmoid, self.jnp.tanh
        i, f, g, o = self.jnp.split(seen + told, 4, -1)
        c = sigmoid(f) * state[1] + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c

    def gru(self, state: States, seen: Any, told: Any) -> States:
        """Gates r, z, n; reset after the product."""
        seen_r, seen_z, seen_n = self.jnp.split(seen, 3, -1)
        told_r, told_z, told_n = self.jnp.split(told, 3, -1)
        z = self.jax.nn.sigmoid(seen_z + told_z)
        n = self.jnp.tanh(seen_n + self.jax.nn.sigmoid(seen_r + told_r) * told_n)
        return ((1 - z) * n + z * state[0],)

    def forward(self, x: Any, weights: Mapping[str, Any]) -> list[Any]:
        """x (T, B, D) -> outputs (T, B, H) and last states (1, B, H), the layout of torch.nn."""
        w_x, w_h, b_x, b_h = (weights[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))

        def read(x: Any) -> Any:
            return x @ w_x.T + b_x

        def step(state: States, x_t: Any) -> tuple[States, Any]:
            state = self.step(state, x_t if self.hoisted else read(x_t), state[0] @ w_h.T + b_h)
            return state, state[0]

        zero = self.jnp.zeros((x.shape[1], w_h.shape[1]), x.dtype)
        last, y = self.jax.lax.scan(step, (zero,) * self.states, read(x) if self.hoisted else x)
        return [y, *(each[None] for each in last)]

    def run(self, x: Any, weights: Mapping[str, Any], cotangents: list[Any]) -> tuple[list[Any], Any, Any]:
        rows, back = self.jax.vjp(self.forward, x, weights)
        dx, d_weights = back(cotangents)
        return rows, dx, d_weights

    def call(self) -> None:
        self.jax.block_until_ready(self.both(self.x, self.weights, self.dense))

    def values(self) -> Arrays:
        rows, dx, d_weights = self.both(self.x, self.weights, self.cotangents)
        found = {("outputs" if n == 0 else f"last state {n}"): np.asarray(each) for n, each in enumerate(rows)}
        found |= {"gradient of input": np.asarray(dx)}
        return found | {f"gradient of {name}": np.asarray(each) for name, each in d_weights.items()}
