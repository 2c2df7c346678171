"""The chart of a loss in the terminal."""

from recurra.cli.chart import chart


class TestChart:
    def test_a_falling_line_falls(self) -> None:
        rows = chart([0, 1], [4.0, 1.0], width=8, height=4).splitlines()
        first = [next(k for k, c in enumerate(row[3:]) if c != "\u2800") for row in rows[:4]]
        assert first == sorted(first) and first[0] == 0
        assert rows[0].startswith("4 ┤") and rows[3].startswith("1 ┤")
        assert rows[-1].split() == ["0", "1"]

    def test_every_row_is_as_wide(self) -> None:
        rows = chart(list(range(100)), [1 / (1 + x) for x in range(100)], width=30, height=5).splitlines()
        assert {len(row) for row in rows[:5]} == {len(rows[0])} and len(rows) == 7

    def test_a_level_line_one_point_and_none(self) -> None:
        assert "2 ┤" in chart([0, 1], [2.0, 2.0])
        assert "2 ┤" in chart([0], [2.0])
        assert chart([], []) == chart([1.0], [float("nan")]) == "(nothing to draw)"
