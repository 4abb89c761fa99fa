"""What of a window lasts: its newest reading, the newest season's level, the pattern."""

from __future__ import annotations

import pytest
import torch

from rnnforecast.model.network import lasting, normalise


def test_without_a_season_only_the_newest_reading_lasts() -> None:
    window = normalise(torch.randn(3, 20))

    (part,) = lasting(window, season=None, horizon=5)

    assert torch.equal(part.past, window.values[:, -1:])
    assert torch.equal(part.ahead, window.values[:, -1:])


@pytest.mark.parametrize(("lookback", "season", "horizon"), [(24, 6, 4), (23, 6, 17), (12, 6, 6)])
def test_level_and_pattern_are_means_over_the_seasons_that_end_the_window(
    lookback: int, season: int, horizon: int
) -> None:
    torch.manual_seed(0)
    window = normalise(torch.randn(3, lookback))

    _, level, pattern = lasting(window, season=season, horizon=horizon)

    values = window.values.tolist()
    whole = lookback - lookback % season
    for n in range(3):
        last = values[n][-whole:]
        assert level.ahead[n].item() == pytest.approx(sum(last[-season:]) / season, abs=1e-5)
        means = [sum(last[i::season]) / (whole // season) for i in range(season)]
        centred = [mean - sum(means) / season for mean in means]
        for lead in range(horizon):
            assert pattern.ahead[n, lead].item() == pytest.approx(centred[lead % season], abs=1e-5)
        for back in range(1, lookback + 1):
            expected = centred[-back % season]
            assert pattern.past[n, -back].item() == pytest.approx(expected, abs=1e-5)


def test_of_a_window_that_repeats_nothing_is_left_beside_its_pattern() -> None:
    season = torch.randn(3, 6)
    window = normalise(season.repeat(1, 4))

    _, level, pattern = lasting(window, season=6, horizon=12)

    assert torch.allclose(level.ahead, torch.zeros(3, 1), atol=1e-6)
    assert torch.allclose(pattern.past, window.values, atol=1e-6)
    assert torch.allclose(pattern.ahead, window.values[:, :12], atol=1e-6)


def with_gaps(values: torch.Tensor, *gaps: slice) -> torch.Tensor:
    values = values.clone()
    for gap in gaps:
        values[:, gap] = torch.nan
    return values


@pytest.mark.parametrize(
    "gaps",
    [
        [slice(18, 24)],
        [slice(15, 24)],
        [slice(0, 18)],
        [slice(0, 9), slice(16, 20)],
        [slice(3, 5), slice(23, 24)],
    ],
    ids=["newest season", "and more", "all but the newest", "holes", "the newest reading"],
)
def test_missing_readings_change_neither_level_nor_pattern(gaps: list[slice]) -> None:
    torch.manual_seed(0)
    season = torch.randn(3, 6)
    season = season - season.mean(1, keepdim=True)
    window = normalise(with_gaps(season.repeat(1, 4), *gaps), rescaled=False)

    _, level, pattern = lasting(window, season=6, horizon=6)

    assert torch.allclose(level.ahead + window.level, torch.zeros(3, 1), atol=1e-5)
    assert torch.allclose(pattern.ahead, season, atol=1e-5)


def test_a_phase_that_never_occurred_is_none_of_the_pattern() -> None:
    values = with_gaps(torch.tensor([[1.0, 2.0, 3.0] * 4]), slice(2, None, 3))
    window = normalise(values, rescaled=False)

    _, level, pattern = lasting(window, season=3, horizon=3)

    assert pattern.ahead.tolist() == [[-0.5, 0.5, 0.0]]
    assert (level.ahead + window.level).item() == pytest.approx(1.5)


def test_of_an_empty_window_nothing_lasts() -> None:
    window = normalise(torch.full((2, 12), torch.nan))

    assert all((part.ahead == 0).all() for part in lasting(window, season=3, horizon=5))
