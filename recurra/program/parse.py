"""Loading a program's text: nothing in it is run, everything in it is checked.

`parse(text)` gives back the plan, and the backward where the text holds one, whose text is the same again. Raises
ProgramError that names the line, for text that is no program and for a program that does not verify.
"""

import ast
import re
from dataclasses import replace

from recurra.errors import ProgramError
from recurra.program.ops import OPS
from recurra.program.plan import (
    Backward,
    Plan,
    exported_of,
    reverse_exported_of,
    reverse_streams_of,
    streams_of,
)
from recurra.program.statics import operator
from recurra.program.values import Argument, Call, Expression, Parameter, Value
from recurra.program.verify import verify_backward, verify_plan

_ATTRIBUTES = {"slice": 2, "broadcast": 1}
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?([eE][+-]?\d+)?|inf|nan)")
_TOKEN = re.compile(r"\s*('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[\[\](),=]|[^\s\[\](),='\"]+)")
_DEEPEST = 200


def parse(text: str) -> tuple[Plan, Backward | None]:
    """The plan and backward that the text says."""
    reader = _Reader(text)
    try:
        return reader.program()
    except ProgramError as error:
        raise ProgramError(f"line {reader.at} of the program: {error}") from None
    except (IndexError, KeyError, ValueError, TypeError, SyntaxError, RecursionError) as error:
        raise ProgramError(f"line {reader.at} of the program cannot be read: {reader.here()!r}") from error


class _Reader:
    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.at = 0
        self.values: dict[str, Value] = {}
        self.statics: dict[str, Value] = {}
        self.consts: dict[str, Value] = {}

    def here(self) -> str:
        return self.lines[self.at - 1] if 0 < self.at <= len(self.lines) else ""

    # ---- lines

    def peek(self) -> str:
        return self.lines[self.at] if self.at < len(self.lines) else ""

    def take(self, head: str) -> str:
        """The rest of the next line, which begins with `head`."""
        line = self.peek()
        self.at += 1
        if not line.startswith(head):
            raise ProgramError(f"expected {head.strip()!r}, found {line!r}")
        return line[len(head) :]

    def program(self) -> tuple[Plan, Backward | None]:
        name = self.take("program ")
        inputs = self.leaves("input", self.take("input "))
        states = self.leaves("state", self.take("state "))
        while self.peek().startswith("static "):
            self.static(self.take("static "))
        before, body, after = self.part("before:"), self.part("loop:"), self.part("after:")
        nexts = self.named(self.take("next "))
        output = self.value(self.take("output "))
        plan = Plan(
            name=name,
            inputs={v.name: v for v in inputs},
            states={v.name: v for v in states},
            nexts=nexts,
            output=output,
            statics=tuple(self.statics.values()),
            before=before,
            body=body,
            after=after,
            streams=streams_of(before, body, inputs, nexts),
            exported=exported_of(body, after, nexts, output),
            linear=self.take("linear "),
        )
        verify_plan(plan)
        backward = self.backward(plan) if self.peek() == "backward:" else None
        if self.at < len(self.lines):
            self.at += 1
            raise ProgramError(f"expected the end, found {self.here()!r}")
        return plan, backward

    def backward(self, plan: Plan) -> Backward:
        self.take("backward:")
        saved = self.named(self.take("saved "))
        d_nexts = self.leaves("cotangent", self.take("cotangent "))
        of_output = self.take("cotangent of output ")
        d_output = None if of_output == "nothing" else self.leaves("cotangent", of_output)[0]
        if d_output is not None and d_output.width != plan.output.width:
            raise ProgramError(f"the cotangent of the output is {d_output.width} wide instead of {plan.output.width}")
        after, body, before = (self.part(f"backward {t}:") for t in ("after", "loop", "before"))
        d_states = tuple(self.maybe(n) for n in self.take("gradient of states ").split(", "))
        d_inputs = {k: self.maybe(self.take(f"gradient {k} = ")) for k in plan.inputs}
        matrices: list[tuple[Value, Value, Value]] = []
        vectors: list[tuple[Value, Value]] = []
        while self.peek().startswith("gradient "):
            words = self.take("gradient ").split(" ")
            static = self.statics[words[0]]
            if words[1:3] == ["+=", "sum"] and len(words) == 4:
                vectors.append((static, self.value(words[3])))
            elif words[1] == "+=" and words[3] == "x" and len(words) == 5:
                matrices.append((static, self.value(words[2]), self.value(words[4])))
            else:
                raise ProgramError("this is no gradient of a weight")
        b = Backward(
            saved, d_output, d_nexts, after, body, before, d_states, d_inputs, tuple(matrices), tuple(vectors), (), ()
        )
        return verify_backward(plan, replace(b, streams=reverse_streams_of(b), exported=reverse_exported_of(b)))

    # ---- values

    def leaves(self, op: str, text: str) -> tuple[Value, ...]:
        found = []
        for word in text.split(", "):
            name, width = self.typed(word)
            plain = name.removeprefix("^") if op == "cotangent" else name
            found.append(self.define(name, Value(op, (), (plain,), width, plain)))
        return tuple(found)

    def typed(self, word: str) -> tuple[str, int]:
        name, _, width = word.rpartition(":")
        if not name or not width.isdecimal() or int(width) < 1:
            raise ProgramError(f"{word!r} is not name:width")
        return name, int(width)

    def define(self, name: str, v: Value) -> Value:
        if name in self.values or _NUMBER.fullmatch(name) or name.startswith("@"):
            raise ProgramError(f"{name!r} is assigned twice, or is no name")
        self.values[name] = v
        return v

    def value(self, name: str) -> Value:
        if name.startswith("@"):
            return self.statics[name]
        if _NUMBER.fullmatch(name):
            return self.consts.setdefault(name, Value("const", (), (float(name),), 1))
        if name not in self.values:
            raise ProgramError(f"{name!r} is read before it is assigned")
        return self.values[name]

    def named(self, text: str) -> tuple[Value, ...]:
        return () if text == "nothing" else tuple(self.value(n) for n in text.split(", "))

    def maybe(self, name: str) -> Value | None:
        return None if name == "nothing" else self.value(name)

    def static(self, text: str) -> None:
        match = re.fullmatch(r"(@\S+) \(([\d, ]*)\)(?: = (.*))?", text)
        if match is None:
            raise ProgramError("this is no static")
        name, dimensions, written = match.groups()
        shape = tuple(int(n) for n in dimensions.split(", ")) if dimensions else ()
        expr: Expression
        if written is None:
            expr = Parameter(name[1:])
        else:
            made = _Words(written).whole()
            if not isinstance(made, (Call, Parameter)):
                raise ProgramError(f"{written!r} is no operation on weights")
            expr = made
        if name in self.statics:
            raise ProgramError(f"{name!r} is assigned twice")
        self.statics[name] = Value("static", (), (), shape[-1] if shape else 1, shape=shape, expr=expr)

    # ---- operations

    def part(self, title: str) -> tuple[Value, ...]:
        self.take(title)
        made = []
        while self.peek().startswith("  "):
            made.append(self.operation(self.take("  ")))
        return tuple(made)

    def operation(self, text: str) -> Value:
        text, _, line = text.partition(" # ")
        target, _, right = text.rstrip().partition(" = ")
        name, width = self.typed(target)
        op, *words = right.split(" ")
        if op not in OPS:
            raise ProgramError(f"{op!r} is not an operation")
        count = len(words) - _ATTRIBUTES.get(op, 0)
        args = tuple(self.value(w) for w in words[:count])
        attr = tuple(int(w) for w in words[count:])
        found = self.values.get(name)
        if found is not None and (found.op, found.args, found.attr, found.width) == (op, args, attr, width):
            return found  # computed again in a backward part
        plain = "" if name.startswith("%") else re.sub(r"\.\d+$", "", name)
        return self.define(name, Value(op, args, attr, width, plain, line))


class _Words:
    """An operation on weights: aten.cat.default([@a, @b], 0)."""

    def __init__(self, text: str) -> None:
        self.words = _TOKEN.findall(text)
        if "".join(self.words) != re.sub(r"\s+(?=(?:[^']*'[^']*')*[^']*$)", "", text):
            raise ProgramError(f"{text!r} is no operation on weights")
        self.at = 0

    def whole(self) -> Argument:
        found = self.argument(0)
        if self.at != len(self.words):
            raise ProgramError(f"{self.words[self.at]!r} follows the end of an operation on weights")
        return found

    def next(self, expected: str = "") -> str:
        word = self.words[self.at]
        self.at += 1
        if expected and word != expected:
            raise ProgramError(f"expected {expected!r}, found {word!r}")
        return str(word)

    def argument(self, depth: int) -> Argument:
        if depth > _DEEPEST:
            raise ProgramError("an operation on weights is nested too deeply")
        word = self.next()
        if word == "[":
            return tuple(self.until("]", depth))
        if word.startswith("@"):
            return Parameter(word[1:])
        if self.at < len(self.words) and self.words[self.at] == "(":
            return self.call(word, depth)
        if word in ("inf", "-inf", "nan"):
            return float(word)
        literal = ast.literal_eval(word)
        if not (literal is None or isinstance(literal, (bool, int, float, str))):
            raise ProgramError(f"{word!r} is no argument of an operation on weights")
        return literal

    def call(self, name: str, depth: int) -> Call:
        if name != "literal":
            operator(name)  # refuses what is not on the list
        self.next("(")
        args: list[Argument] = []
        kwargs: list[tuple[str, Argument]] = []
        while self.words[self.at] != ")":
            if self.words[self.at + 1] == "=":
                key = self.next()
                self.next("=")
                kwargs.append((key, self.argument(depth + 1)))
            else:
                args.append(self.argument(depth + 1))
            if self.words[self.at] != ")":
                self.next(",")
        self.next(")")
        result = None
        if self.words[self.at : self.at + 1] == ["["]:
            self.next("[")
            result = int(self.next())
            self.next("]")
        return Call(name, tuple(args), tuple(kwargs), result)

    def until(self, end: str, depth: int) -> list[Argument]:
        found: list[Argument] = []
        while self.words[self.at] != end:
            found.append(self.argument(depth + 1))
            if self.words[self.at] != end:
                self.next(",")
        self.next(end)
        return found
