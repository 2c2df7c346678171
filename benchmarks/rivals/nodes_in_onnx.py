"""LSTM and GRU inference in onnxruntime: one node each, put together by hand from torch.nn's weights."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.records import Task

Arrays = Mapping[str, np.ndarray]
GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}  # torch.nn's i f g o as ONNX's i o f c; r z n as z r h
OPSET, IR = 17, 8  # old enough for every onnxruntime of the last years


def variants(task: Task, given: Arrays) -> Mapping[str, Callable[[], "Node"]]:
    return {
        "spinning": lambda: Node(task, given, spinning=True),
        "not spinning": lambda: Node(task, given, spinning=False),
    }


def model(cell: str, given: Arrays) -> bytes:
    """X (T, B, D) -> Y (T, 1, B, H), and the last states."""
    hidden = given["weight_hh_l0"].shape[1]
    time, batch, _ = given["input"].shape

    def ordered(name: str) -> np.ndarray:
        blocks = given[f"{name}_l0"].reshape(len(GATES[cell]), hidden, -1)
        return np.concatenate([blocks[gate] for gate in GATES[cell]])[None]

    bias = np.concatenate([ordered("bias_ih"), ordered("bias_hh")], 1)[:, :, 0]
    weights = {"W": ordered("weight_ih"), "R": ordered("weight_hh"), "B": bias}
    last = ["Y_h", "Y_c"] if cell == "lstm" else ["Y_h"]
    options = {"linear_before_reset": 1} if cell == "gru" else {}
    node = helper.make_node(cell.upper(), ["X", *weights], ["Y", *last], hidden_size=hidden, **options)
    graph = helper.make_graph(
        [node],
        cell,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, given["input"].shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, (time,) * (name == "Y") + (1, batch, hidden))
            for name in ["Y", *last]
        ],
        [numpy_helper.from_array(each, name) for name, each in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(made)
    content: bytes = made.SerializeToString()
    return content


class Node:
    """spinning: its threads spin for work until the run returns; else they sleep between two pieces of work."""

    def __init__(self, task: Task, given: Arrays, spinning: bool) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = task.threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        options.add_session_config_entry("session.force_spinning_stop", "1")
        content = model(task.cell, given)
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.feed = {"X": given["input"]}

    def call(self) -> None:
        self.session.run(None, self.feed)

    def values(self) -> Arrays:
        y, *last = self.session.run(None, self.feed)
        return {"outputs": y} | {f"last state {n}": each for n, each in enumerate(last, 1)}
