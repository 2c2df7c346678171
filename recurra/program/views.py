"""Values that look at others, and the same numbers as a value of their own."""

from recurra.program.values import Value

_ONE = Value("const", (), (1.0,), 1)


def is_view(v: Value) -> bool:
    """Whether a value is only a way to look at another one."""
    return v.op in ("slice", "broadcast")


def source(v: Value) -> Value:
    """What a chain of slices and broadcasts is a view of."""
    while is_view(v):
        v = v.args[0]
    return v


def uncut(v: Value) -> tuple[Value, int]:
    """What a chain of slices is cut out of, and the column where it begins there."""
    column = 0
    while v.op == "slice":
        column, v = column + int(v.attr[0]), v.args[0]
    return v, column


def copied(v: Value) -> Value:
    """The same numbers, in rows of their own: an operation that no identity takes away again."""
    return Value("mul", (v, _ONE), (), v.width, v.name, v.line)
