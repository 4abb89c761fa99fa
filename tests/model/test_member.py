"""One member: every lead is one step from the newest state, and it sees only its own look-back."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnnforecast.config.training import NetworkConfig
from rnnforecast.model.network import Member, Window, lasting, mixing
from rnnforecast.spec import QUANTILES, MemberSpec
from tests.builders import make_spec
from tests.model.networks import CELL_NAMES, make_network
from tests.model.test_recurrence import OF_TORCH, TORCHS_OWN


def make_member(**options: Any) -> Member:
    """Make the only member of a small network."""
    (member,) = make_network(**options).members
    return member


def make_window(member: Member, n: int = 3) -> Window:
    torch.manual_seed(1)
    return member.normalised(torch.randn(n, member.spec.lookback))


def known(n: int) -> tuple[Tensor, Tensor]:
    """Return n times the first series, and step 0."""
    return torch.ones(n).long(), torch.zeros(n).long()


def gradients_at_the_newest(member: Member) -> Tensor:
    """Gradient of every lead's median with respect to the newest reading, (horizon,).

    Level, spread and newest reading of the window are constants: all of it comes through the
    recurrence.
    """
    window = make_window(member)
    values = window.values.clone().requires_grad_()
    medians = member.decode(window._replace(values=values), torch.ones(3, dtype=torch.long))
    medians = medians[..., member.network_spec.median].sum(0)
    gradients = [torch.autograd.grad(m, values, retain_graph=True)[0][:, -1] for m in medians]
    return torch.stack(gradients).abs().min(1).values


class LaggingMember(Member):
    """The mistake to catch: later leads are decoded from a state that has not seen the newest."""

    def decode(self, window: Window, series: Tensor, *, mask: Tensor | None = None) -> Tensor:
        output = super().decode(window, series, mask=mask)
        older = torch.cat([window.values[:, :1], window.values[:, :-1]], 1)
        lagging = super().decode(window._replace(values=older), series, mask=mask)
        half = self.network_spec.horizon // 2
        return torch.cat([output[:, :half], lagging[:, half:]], 1)


@pytest.mark.parametrize("segment", [1, 6])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_lead_depends_on_the_newest_reading(cell: str, segment: int) -> None:
    member = make_member(cell=cell, segment=segment)
    assert (gradients_at_the_newest(member) > 1e-9).all()


@pytest.mark.parametrize("segment", [1, 6])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_decoding_from_an_earlier_state_is_caught(cell: str, segment: int) -> None:
    network = make_network(cell=cell, segment=segment)
    member = LaggingMember(network.spec, network.spec.members[0], network.config).eval()
    assert not (gradients_at_the_newest(member) > 1e-9).all()


def quantiles_by_a_loop(raw: Tensor, median: int) -> Tensor:
    """Add up the gaps on both sides of the median."""
    made = torch.empty_like(raw)
    made[..., median] = raw[..., median]
    for k in range(median - 1, -1, -1):
        made[..., k] = made[..., k + 1] - raw[..., k]
    for k in range(median + 1, raw.shape[-1]):
        made[..., k] = made[..., k - 1] + raw[..., k]
    return made


@pytest.mark.parametrize(("n_quantiles", "median"), [(11, 5), (1, 0), (3, 0), (3, 2), (5, 1)])
def test_mixing_adds_up_the_gaps_on_both_sides_of_the_median(n_quantiles: int, median: int) -> None:
    raw = torch.randn(7, n_quantiles)
    found = raw @ mixing(n_quantiles, median).T
    assert torch.allclose(found, quantiles_by_a_loop(raw, median), atol=1e-5)


@pytest.mark.parametrize("season", [None, 8])
@pytest.mark.parametrize(("lookback", "horizon"), [(24, 12), (23, 7)])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", OF_TORCH)
def test_decoding_is_a_run_of_torchs_own_layers_for_each_stretch_of_the_horizon(
    cell: str, layers: int, lookback: int, horizon: int, season: int | None
) -> None:
    members = (MemberSpec(lookback, 6, linear=True, seasonal=season is not None),)
    sizes = {"lookback": lookback, "horizon": horizon, "season": 8}
    member = make_member(cell=cell, layers=layers, members=members, **sizes)
    nn.init.normal_(member.missing_proj.weight)
    shares = torch.tensor([0.3, 0.2, 0.9])[: len(member.persistence)]
    member.persistence.data.copy_(shares[:, None])
    window, series = make_window(member), torch.tensor([0, 1, 2])
    own = TORCHS_OWN[cell](16, 16, num_layers=layers)
    with torch.no_grad():
        for k in range(layers):
            for way, letter in (("linear_ih", "i"), ("linear_hh", "h")):
                linear = getattr(member.recurrence, way)[k]
                getattr(own, f"weight_{letter}h_l{k}").copy_(linear.weight)
                getattr(own, f"bias_{letter}h_l{k}").copy_(linear.bias)

    short = -lookback % 6
    parts = lasting(window, season=season, horizon=horizon)
    lasts = sum(share * part.past for share, part in zip(shares.tolist(), parts, strict=True))
    read = window.values - lasts
    read = torch.cat([torch.zeros(3, short), read], 1)
    missing = torch.cat([torch.ones(3, short), torch.zeros(3, lookback)], 1)
    embedded = [
        torch.relu(
            member.segment_proj(read[:, i : i + 6]) + member.missing_proj(missing[:, i : i + 6])
        )
        for i in range(0, lookback + short, 6)
    ]
    if season is not None:  # a season of 8 is shown in two segments of 6
        pattern = parts[2].past[:, -12:]
        embedded = [
            torch.relu(member.segment_proj(pattern[:, i : i + 6])) for i in (0, 6)
        ] + embedded
    stretches = []
    for position in member.lead_embedding:
        outputs, _ = own(torch.stack([*embedded, position + member.series_embedding(series)]))
        raw = member.head(outputs[-1]).view(3, 6, len(QUANTILES))
        stretches.append(quantiles_by_a_loop(raw, member.network_spec.median))
    expected = torch.cat(stretches, 1)[:, :horizon]

    assert torch.allclose(member.decode(window, series), expected, atol=1e-5)


def test_every_part_that_lasts_has_a_share_of_its_own_at_each_lead() -> None:
    member = make_member(season=8, members=(MemberSpec(24, 6, linear=True, seasonal=True),))
    nn.init.normal_(member.persistence)
    window = make_window(member)
    newest, level, pattern = lasting(window, season=8, horizon=12)

    found = member.persistence_term(window)

    for lead in range(12):
        a, b, c = member.persistence[:, lead]
        expected = a * newest.ahead[:, 0] + b * level.ahead[:, 0] + c * pattern.ahead[:, lead]
        assert torch.allclose(found[:, lead], expected, atol=1e-5)


def test_quantiles_never_cross_whatever_the_head_says() -> None:
    member = make_member()
    nn.init.normal_(member.head.weight, std=50.0)
    series, step = known(200)
    window = make_window(member, 200)
    assert (member.decode(window, series).diff(dim=-1) < 0).any(), "the test needs a crossing"
    forecast = member(3 * torch.randn(200, 24), series, step)
    assert (forecast.diff(dim=-1) >= 0).all()


def test_quantiles_that_cross_are_put_in_order() -> None:
    member = make_member(season=1)
    nn.init.normal_(member.head.weight, std=5.0)
    nn.init.normal_(member.persistence)
    scaled = torch.randn(4, 24)
    series, step = known(4)
    window = member.normalised(scaled)
    decoded, lasting = member.decode(window, series), member.persistence_term(window)
    forecast = member(scaled, series, step)
    for n in range(4):
        for lead in range(12):
            ordered = torch.tensor(sorted(decoded[n, lead].tolist())) + lasting[n, lead]
            expected = ordered * window.spread[n] + window.level[n]
            assert torch.allclose(forecast[n, lead], expected, atol=1e-5)


def test_an_untrained_member_gives_the_quantiles_of_a_normal_distribution() -> None:
    member = make_member()
    nn.init.zeros_(member.head.weight)
    output = member.decode(make_window(member), torch.ones(3).long())
    expected = torch.tensor([NormalDist(0, 0.5).inv_cdf(q) for q in QUANTILES])
    assert torch.allclose(output, expected.expand_as(output), atol=1e-5)


def test_a_shifted_and_stretched_window_gives_a_shifted_and_stretched_forecast() -> None:
    member = make_member(season=1, members=(MemberSpec(24, 6, linear=True, seasonal=False),))
    history = torch.randn(4, 24)
    plain = member(history, *known(4))
    moved = member(7 + 3 * history, *known(4))
    assert torch.allclose(moved, 7 + 3 * plain, atol=2e-3)


def test_a_member_that_is_not_linear_sees_how_much_a_window_moves() -> None:
    member = make_member(season=1)
    history = torch.randn(4, 24)
    plain = member(history, *known(4))
    assert torch.allclose(member(7 + history, *known(4)), 7 + plain, atol=1e-4)
    assert not torch.allclose(member(3 * history, *known(4)), 3 * plain, atol=0.1)


def test_missing_readings_are_a_mask_and_not_a_value() -> None:
    member = make_member()
    nn.init.normal_(member.missing_proj.weight)
    history = torch.randn(2, 24)
    history[1, 10:14] = float("nan")
    carried = history.clone()
    carried[1, 10:14] = history[1, 9]
    with_gap, without = member(history, *known(2)), member(carried, *known(2))
    assert torch.isfinite(with_gap).all()
    assert torch.allclose(with_gap[0], without[0], atol=1e-5)
    assert not torch.allclose(with_gap[1], without[1], atol=1e-3)


def test_a_window_without_any_reading_gives_a_finite_forecast() -> None:
    output = make_member()(torch.full((1, 24), torch.nan), *known(1))
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("next_step", [0, 1, 5, 1000, -3])
def test_the_cycle_follows_the_calendar_and_not_the_window(next_step: int) -> None:
    member = make_member(lookback=6, horizon=5, season=4)
    nn.init.normal_(member.seasonal_pattern.weight)
    past, ahead = member.seasonal_baseline(torch.tensor([1]), torch.tensor([next_step]))
    table = member.seasonal_pattern.weight[1]
    expected = torch.stack([table[(next_step - 6 + k) % 4] for k in range(11)])
    assert torch.equal(past[0], expected[:6])
    assert torch.equal(ahead[0], expected[6:])


def test_a_member_sees_only_its_own_newest_readings_of_a_longer_window() -> None:
    torch.manual_seed(0)
    spec = make_spec(24, 12, 5, 2, members=(MemberSpec(14, 6, linear=False, seasonal=False),))
    member = Member(spec, spec.members[0], NetworkConfig(hidden=16)).eval()
    nn.init.normal_(member.seasonal_pattern.weight)
    history, series, step = torch.randn(3, 24), torch.tensor([0, 1, 2]), torch.tensor([0, 7, 13])
    forecast = member(history, series, step)

    assert torch.equal(member(history[:, -14:], series, step), forecast)
    for other in (torch.nan, 1e6):
        changed = history.clone()
        changed[:, :-14] = other
        assert torch.equal(member(changed, series, step), forecast)
    changed = history.clone()
    changed[:, -14] += 1
    assert not torch.equal(member(changed, series, step), forecast)


def test_what_is_dropped_is_the_same_for_all_leads_and_decided_by_the_generator() -> None:
    member = make_member(dropout=0.5)
    nn.init.zeros_(member.lead_embedding)  # so that all stretches of the horizon are equal
    window, series = make_window(member), torch.ones(3).long()

    def dropped(seed: int) -> Tensor:
        mask = member.dropout_mask(3, torch.Generator().manual_seed(seed))
        return member.decode(window, series, mask=mask)

    whole, first = member.decode(window, series), dropped(0)
    assert torch.allclose(first[:, :6], first[:, 6:], atol=1e-6)
    assert torch.equal(dropped(0), first)
    assert not torch.allclose(dropped(1), first, atol=1e-3)
    assert not torch.allclose(whole, first, atol=1e-3)
    many = Window(*(x if x is None else x[:1].expand(4000, -1) for x in window))
    ones, kept = (
        torch.ones(4000).long(),
        member.dropout_mask(4000, torch.Generator().manual_seed(0)),
    )
    mean = member.decode(many, ones, mask=kept).mean(0)
    assert torch.allclose(mean, whole[0], atol=0.1)
