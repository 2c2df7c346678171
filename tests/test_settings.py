"""Settings of a run: found from the data, with help for each, and the learning rate that follows from them."""

import subprocess
import sys
from pathlib import Path

import pytest

from recurra.training.language import complete
from recurra.training.schedule import learning_rate
from recurra.training.settings import Settings, describe, settings


@pytest.mark.parametrize("characters", [4, 40, 500, 5_000, 335_894, 10**8])
def test_settings_found_from_the_data_can_be_used(characters: int) -> None:
    full = complete(Settings(), characters, min(characters, 100))
    assert full.batch and full.window and full.steps and full.eval_interval and full.log_interval
    assert full.window < characters and full.batch * full.window <= characters
    assert full.log_interval <= full.eval_interval <= full.steps
    assert complete(full, characters, 100) == full


@pytest.mark.parametrize(
    ("characters", "seen"), [(1_000, 200_000), (335_894, 1_050_000), (2_000_000, 3_000_000), (10**8, 10**8)]
)
def test_how_long_it_trains_unless_told(characters: int, seen: int) -> None:
    full = complete(Settings(), characters, 100)
    assert full.steps and full.batch and full.window
    assert full.steps * full.batch * full.window == pytest.approx(seen, rel=0.01)
    assert complete(Settings(epochs=2), 335_894, 100).steps == 2 * (335_894 // (16 * 64))
    assert complete(Settings(steps=77), 335_894, 100).steps == 77


def test_settings_need_no_torch_and_all_have_help() -> None:
    code = "import sys, recurra.training.settings; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    assert done.stdout.split() == ["False", "False"]
    assert all(row.help.endswith((".", "]")) and row.kind for row in describe())
    assert settings(seed=2**64 - 1).seed == 2**64 - 1
    assert settings(**{row.name: row.default for row in describe()}) == Settings()


def test_schedules() -> None:
    constant = Settings(schedule="constant", learning_rate=1.0, warmup=4, steps=20)
    assert [learning_rate(constant, n) for n in (0, 1, 3, 4, 19)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    cosine = Settings(schedule="cosine", learning_rate=1.0, warmup=0, steps=100)
    assert learning_rate(cosine, 0) == 1.0
    assert learning_rate(cosine, 50) == pytest.approx(0.51)
    assert learning_rate(cosine, 100) == pytest.approx(0.02)
    rates = [learning_rate(cosine, n) for n in range(101)]
    assert rates == sorted(rates, reverse=True)
