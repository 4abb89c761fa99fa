"""The split by time: what trains, what decides when to stop, what is held out.

Apart from `windows`, which takes cutoffs as given: here shares of the readings, or ends that the
user names, become moments, the same for every series, so that nothing learnt from one series is
later than what another is judged by.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from rnnforecast.config import BacktestConfig
from rnnforecast.data.forecast import Past, past_of
from rnnforecast.data.origins import Origins
from rnnforecast.data.panel import Panel
from rnnforecast.data.stamps import format_stamp, parse_time_us
from rnnforecast.errors import NotEnoughDataError, UsageError

_MAX_EVALUATED = 150_000
_MIN_ORIGINS = 20


@dataclass(frozen=True)
class Cuts:
    """Three moments, in microseconds: the first times that no longer belong to each part."""

    train_until_us: int
    test_from_us: int
    end_us: int


@dataclass(frozen=True)
class Split:
    """Three stretches of one panel. A stretch that the data have no room for is None."""

    panel: Panel
    train: Past
    validation: Past | None
    """Sees up to the end of the validation part; its targets lie after the train part."""
    test_from_us: int | None
    """The first time that belongs to the test part."""

    @property
    def before_test(self) -> Past:
        """All that may be learnt from before the test part is looked at."""
        return self.validation or self.train

    @property
    def everything(self) -> Past:
        """All readings: what the saved version learns from in the end."""
        return past_of(self.panel)


def split_by_time(
    panel: Panel, *, validation: float, test: float, lookback: int, horizon: int
) -> Split:
    """Cut the newest share of the readings off as test part, and the share before as validation.

    Each part is at least one horizon long. Where that leaves no window to train on, the validation
    part goes first, then the test part.
    """
    cuts = cuts_by_share(panel, validation=validation, test=test, at_least=horizon)
    end = cuts.end_us
    smaller = replace(cuts, train_until_us=cuts.test_from_us)
    for tried in (cuts, smaller, Cuts(end, end, end)):
        split = split_at(panel, tried)
        if len(split.train.windows(lookback, horizon)):
            break
    return split


def split_at(panel: Panel, cuts: Cuts) -> Split:
    """Cut a panel at three moments."""
    train_until, test_from = cuts.train_until_us, cuts.test_from_us
    return Split(
        panel,
        train=past_of(panel, panel.rows_before(train_until)),
        validation=past_of(panel, panel.rows_before(test_from))
        if train_until < test_from
        else None,
        test_from_us=test_from if test_from < cuts.end_us else None,
    )


def test_origins(split: Split, *, lookback: int, horizon: int) -> Origins:
    """Return the origins of the test part: a horizon apart, closer where that gives too few."""
    assert split.test_from_us is not None
    panel = split.panel
    every = {"lookback": lookback, "horizon": horizon}
    rows = int(Origins.rolling(panel, split.test_from_us, stride=1, **every).counts.max(initial=0))
    stride = max(1, min(horizon, rows // _MIN_ORIGINS))
    origins = Origins.rolling(panel, split.test_from_us, stride=stride, **every)
    return origins.thinned(_MAX_EVALUATED // horizon)


def cuts_by_share(panel: Panel, *, validation: float, test: float, at_least: int) -> Cuts:
    """Return the moments that leave these shares of the rows, and at least so many, after them."""
    end = _end_of(panel)
    test_from = _moment(panel, end, share=test, at_least=at_least) if test else end
    if not validation:
        return Cuts(test_from, test_from, end)
    share = validation / (1 - test)
    return Cuts(_moment(panel, test_from, share=share, at_least=at_least), test_from, end)


def cuts_by_ends(
    panel: Panel,
    ends: BacktestConfig,
    tz: str | None,
    *,
    validation: float,
    test: float,
    horizon: int,
) -> Cuts:
    """Return the moments that the user names; what is not named comes from shares of the rows.

    The panel must end where the test part does. Raises `UsageError` for ends in another order, and
    `NotEnoughDataError` where a part is empty.
    """
    end = _end_of(panel)
    if ends.validation_end is not None:
        test_from = moment_of(ends.validation_end, panel, tz)
    elif ends.windows is not None:
        stride = ends.stride or horizon
        test_from = end - (horizon + (ends.windows - 1) * stride) * panel.step_us
    else:
        test_from = _moment(panel, end, share=test, at_least=horizon)
    if ends.train_end is not None:
        train_until = moment_of(ends.train_end, panel, tz)
    else:
        share = validation / (1 - test)
        train_until = _moment(panel, test_from, share=share, at_least=horizon)
    shown = [format_stamp(us, tz) for us in (train_until, test_from, end)]
    if not train_until <= test_from < end:
        raise UsageError(
            f"the train part ends at {shown[0]}, the validation part at {shown[1]} and the test "
            f"part at {shown[2]}: they must follow each other",
            hint="check --train-end, --validation-end and --test-end",
        )
    if not past_of(panel, panel.rows_before(train_until)).cutoff.any():
        raise NotEnoughDataError(
            f"no reading lies before the end of the train part, {shown[0]}",
            code="too-short",
            hint="pass a later --train-end, or fewer --windows",
        )
    return Cuts(train_until, test_from, end)


def moment_of(text: str, panel: Panel, tz: str | None) -> int:
    """Read a time stamp or a row number, counted from the first row of all, as a moment."""
    if re.fullmatch(r"\d{1,12}", text.strip()):
        return int(panel.start.min()) + int(text) * panel.step_us
    return parse_time_us(text, tz)


def _end_of(panel: Panel) -> int:
    """Return the first time after all readings."""
    return int((panel.start + panel.lengths * panel.step_us).max())


def _moment(panel: Panel, before_us: int, *, share: float, at_least: int) -> int:
    """Return the grid time that leaves this share of the rows before `before_us` after it."""
    total = int(panel.rows_before(before_us).sum())
    low, high = int(panel.start.min()), before_us
    while high - low > panel.step_us:
        middle = (low + high) // 2
        if total - int(panel.rows_before(middle).sum()) >= share * total:
            low = middle
        else:
            high = middle
    steps_back = max(1, at_least, (before_us - low) // panel.step_us)
    return before_us - steps_back * panel.step_us
