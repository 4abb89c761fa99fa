"""One member: against a loop over windows and segments, and laws of its quantiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rnnforecast.model.experts import FULL, NAMES
from rnnforecast.model.inputs import Segments
from rnnforecast.model.member import _FIRST_SHARES, Member
from rnnforecast.model.member import make_member as make_torch_member
from rnnforecast.spec import N_EXPERTS, N_FULL, QUANTILES, MemberSpec
from tests.builders import make_spec
from tests.model.networks import CELL_NAMES, draw_network, make_network, make_segments, quantiles_of

N_QUANTILES, MEDIAN = len(QUANTILES), QUANTILES.index(0.5)
STRETCH, STATE = [0, 0, 1, 2, 2], [4, 2, 0, 3, 1]
"""The stretch of each window that branches off, and the segments of it before the cutoff."""
SEES = MemberSpec("gru", 4, 1, 4, covariates=True)


def make_member(*members: MemberSpec, **options: object) -> tuple[Member, Segments]:
    """Make the only member of a small network, and inputs of three windows."""
    network = make_network(*members, **options)
    member = make_torch_member(network, 0)
    return member, make_segments(member, network.spec)


def make_branches(*members: MemberSpec, **options: object) -> tuple[Member, Segments, Segments]:
    """Make a member, and inputs of three stretches and of five windows that branch off them."""
    network = make_network(*members, **options)
    member = make_torch_member(network, 0)
    history = make_segments(member, network.spec, n_segments=4)
    return member, history, make_segments(member, network.spec, n=5, n_segments=2)


def linear(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    y = layer.weight.detach().double().numpy() @ x
    return y if layer.bias is None else y + layer.bias.detach().double().numpy()


def norm(layer: nn.LayerNorm, x: np.ndarray) -> np.ndarray:
    weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
    return weight * (x - x.mean()) / np.sqrt(x.var() + 1e-5) + bias


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def quantiles_by_a_loop(member: Member, segments: Segments) -> np.ndarray:
    """Window by window and segment by segment; the cells themselves have a test of their own."""
    values, experts, gain = (x.double().numpy() for x in segments[:3])
    n, n_segments = gain.shape
    segment = member.spec.segment
    result = np.empty((n, n_segments, N_QUANTILES, segment))
    for window in range(n):
        states = [None] * len(member.blocks)
        for i in range(n_segments):
            first = linear(member.embed, values[window, i])
            x = first + linear(member.embed_again, silu(first))
            covariates = None
            if member.covariates_to_state is not None:
                covariates = segments.covariates[window, i].double().numpy()
                x = x + linear(member.covariates_to_state, covariates)
            for number, block in enumerate(member.blocks):
                step = torch.from_numpy(norm(block.norm, x)).float()[None, None]
                with torch.no_grad():
                    states[number] = block.recurrence(step, states[number]).at(-1)
                x = x + states[number].hidden[0].double().numpy()
                between = silu(linear(block.expand, norm(block.norm_between, x)))
                x = x + linear(block.contract, between)

            inputs = np.concatenate([norm(member.norm, x), values[window, i]])
            hidden = linear(member.head_hidden, inputs)
            unit, reaction = gain[window, i], np.zeros(segment)
            if member.covariates_to_head is not None:
                hidden = hidden + linear(member.covariates_to_head, covariates)
            hidden = silu(hidden)
            if member.reaction_head is not None:
                share = linear(member.reaction_head, hidden)
                reaction = share * segments.reaction[window, i].double().numpy()
                unit = min(unit, max(segments.reaction_error[window, i].item(), 0.01))
            out = linear(member.head, hidden).reshape(N_QUANTILES + N_EXPERTS, segment)
            for row in range(segment):
                logits = out[N_QUANTILES : N_QUANTILES + N_FULL, row]
                shares = np.exp(logits) / np.exp(logits).sum()
                weights = [*shares, *out[N_QUANTILES + N_FULL :, row]]
                median = out[0, row] * unit + reaction[row]
                median += np.dot(weights, experts[window, i, :, row])
                gaps = unit * np.log1p(np.exp(out[1:N_QUANTILES, row]))
                line = [median]
                for gap in gaps[: N_QUANTILES - 1 - MEDIAN]:
                    line.append(line[-1] + gap)
                for gap in gaps[N_QUANTILES - 1 - MEDIAN :]:
                    line.insert(0, line[0] - gap)
                result[window, i, :, row] = line
    return result


@pytest.mark.parametrize(
    ("members", "options"),
    [
        *(((), {"cell": cell}) for cell in CELL_NAMES),
        ((), {"layers": 3, "segment": 1}),
        ((SEES,), {"n_features": (2, 1, 1)}),
        ((SEES,), {"n_features": (0, 1, 1)}),
    ],
    ids=str,
)
def test_quantiles_are_those_of_a_loop_over_windows_and_segments(
    members: tuple[MemberSpec, ...], options: dict
) -> None:
    member, segments = make_member(*members, **options)

    with torch.no_grad():
        quantiles = quantiles_of(member, segments)

    assert quantiles.shape == (3, 6, N_QUANTILES, member.spec.segment)
    np.testing.assert_allclose(quantiles, quantiles_by_a_loop(member, segments), atol=2e-5)


def test_quantiles_never_cross_whatever_the_head_puts_out() -> None:
    member, segments = make_member()
    nn.init.normal_(member.head.weight, std=50.0)
    quantiles = quantiles_of(member, segments)
    assert (quantiles.diff(dim=2) >= 0).all()
    assert quantiles.abs().max() > 100, "the test needs large outputs"


def test_quantiles_are_as_far_apart_as_the_gain() -> None:
    member, segments = make_member()
    near, far = (
        quantiles_of(member, segments._replace(gain=x * segments.gain)) for x in (1.0, 3.0)
    )
    torch.testing.assert_close(far.diff(dim=2), 3 * near.diff(dim=2))


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_a_segment_depends_on_all_before_it_and_on_none_after(cell: str) -> None:
    """Every lead is thus forecast from a state that has seen the newest reading."""
    member, segments = make_member(cell=cell, layers=2)
    values = segments.values.clone().requires_grad_()
    quantiles = quantiles_of(member, segments._replace(values=values))

    for i in range(6):
        for row in range(member.spec.segment):
            total = quantiles[:, i, MEDIAN, row].sum()
            (gradient,) = torch.autograd.grad(total, values, retain_graph=True)
            sizes = gradient.abs().sum(2)
            assert (sizes[:, : i + 1] > 1e-9).all()
            assert (sizes[:, i + 1 :] == 0).all()


def test_a_window_has_the_quantiles_that_it_has_alone() -> None:
    member, segments = make_member(layers=2)
    together = quantiles_of(member, segments)
    for window in range(3):
        alone = Segments(*(x if x is None else x[window, None] for x in segments))
        torch.testing.assert_close(quantiles_of(member, alone)[0], together[window])


def test_a_new_member_forecasts_by_experts_with_a_band_as_wide_as_their_error() -> None:
    torch.manual_seed(0)
    spec = make_spec()
    member = make_torch_member(draw_network(spec), 0)
    nn.init.zeros_(member.head.weight)
    segments = make_segments(member, spec)

    quantiles = quantiles_of(member, segments)

    shares = [_FIRST_SHARES.get(name, 0.0) for name in NAMES]
    weights = torch.tensor(shares)
    weights[: len(FULL)] = weights[: len(FULL)].softmax(0)
    expected = (weights[:, None] * segments.experts).sum(2)
    torch.testing.assert_close(quantiles[:, :, MEDIAN], expected)
    gap = F.softplus(torch.tensor(-1.0)) * segments.gain[..., None, None]
    torch.testing.assert_close(quantiles.diff(dim=2), gap.expand(3, 6, N_QUANTILES - 1, 4))


@pytest.mark.parametrize(
    ("members", "options"),
    [
        *(((), {"cell": cell, "layers": 2}) for cell in CELL_NAMES),
        ((SEES,), {"n_features": (2, 1, 1)}),
    ],
    ids=str,
)
def test_windows_that_branch_off_a_stretch_have_the_quantiles_of_the_stretch_cut_there(
    members: tuple[MemberSpec, ...], options: dict
) -> None:
    member, history, ahead = make_branches(*members, **options)

    with torch.no_grad():
        quantiles = member(history, ahead, torch.tensor(STRETCH), torch.tensor(STATE))

    for window, (stretch, state) in enumerate(zip(STRETCH, STATE, strict=True)):
        cut = Segments(
            *(
                x if x is None else torch.cat([x[stretch, None, :state], y[window, None]], 1)
                for x, y in zip(history, ahead, strict=True)
            )
        )
        expected = quantiles_by_a_loop(member, cut)[0, state:]
        np.testing.assert_allclose(quantiles[window], expected, atol=2e-5)


# Truncated


@pytest.mark.parametrize("reach", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_truncated_nothing_changes_but_gradients_which_are_those_of_a_loop(
    cell: str, reach: int
) -> None:
    """The loop runs segment by segment, and forgets at each border how its states came about."""
    member, history, _ = make_branches(cell=cell, layers=2)
    encoded, states = member.encode(history, reach=reach)

    embedded = member.embedded(history)
    parts, loop = [], [[block.recurrence.zeros(embedded)] for block in member.blocks]
    for i in range(4):
        x = embedded[i : i + 1]
        for of_block, block in zip(loop, member.blocks, strict=True):
            begin = of_block[-1].detach() if i % reach == 0 else of_block[-1]
            x, both = block(x, begin)
            of_block.append(both.at(1))
        parts.append(x[0])
    expected = [torch.stack(parts, 1)]
    for of_block in loop:
        expected += [torch.stack(x) for x in zip(*of_block, strict=True) if x[0] is not None]

    whole, all_states = member.encode(history)
    results = [encoded, *(x for state in states for x in state if x is not None)]
    same = [whole, *(x for state in all_states for x in state if x is not None)]
    for result, reference, value in zip(results, expected, same, strict=True):
        torch.testing.assert_close(result, reference)
        torch.testing.assert_close(result, value)
    weights = [torch.randn_like(x) for x in results]
    parameters = [member.embed.weight, *member.blocks.parameters()]
    gradients, references = (
        torch.autograd.grad(
            sum((w * x).sum() for w, x in zip(weights, values, strict=True)), parameters
        )
        for values in (results, expected)
    )
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reach", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_gradients_end_at_every_border_of_the_reach_and_at_none_without(
    cell: str, reach: int
) -> None:
    member, history, ahead = make_branches(cell=cell, layers=2)
    values = history.values.clone().requires_grad_()
    for limit in (None, reach):
        encoded, states = member.encode(history._replace(values=values), reach=limit)
        later = member.encode_ahead(states, ahead, torch.tensor(STRETCH), torch.tensor(STATE))

        seen = torch.arange(4)
        for i in range(4):
            (gradient,) = torch.autograd.grad(encoded[:, i].sum(0)[0], values, retain_graph=True)
            border = i // limit * limit if limit else 0
            is_reached = (seen >= border) & (seen <= i)
            assert torch.equal(gradient.abs().sum(2) > 0, is_reached.expand(3, 4))
        for window, (stretch, state) in enumerate(zip(STRETCH, STATE, strict=True)):
            if not state:
                continue
            last = later[window, -1, 0]
            (gradient,) = torch.autograd.grad(last, values, retain_graph=True)
            border = (state - 1) // limit * limit if limit else 0
            is_reached = torch.zeros(3, 4, dtype=torch.bool)
            is_reached[stretch, border:state] = True
            assert torch.equal(gradient.abs().sum(2) > 0, is_reached)


# Covariates


@pytest.mark.parametrize("n_known", [0, 2])
def test_covariates_have_no_effect_at_the_start_but_for_half_of_the_reaction(n_known: int) -> None:
    torch.manual_seed(0)
    spec = replace(make_spec(members=(SEES,)), n_known=n_known, n_past=1, n_static=1)
    member = make_torch_member(draw_network(spec), 0)
    segments = make_segments(member, spec)
    others = segments._replace(covariates=100 * torch.randn_like(segments.covariates))
    blind_spec = replace(spec, members=(replace(SEES, covariates=False),))
    blind = make_torch_member(draw_network(blind_spec), 0)
    blind.load_state_dict(member.state_dict(), strict=False)

    quantiles = quantiles_of(member, segments)

    assert torch.equal(quantiles, quantiles_of(member, others))
    unit, reaction = segments.gain, 0.0
    if n_known:
        unit = unit.minimum(segments.reaction_error.clamp(min=0.01))
        reaction = 0.5 * segments.reaction[:, :, None]
    expected = quantiles_of(blind, segments._replace(gain=unit)) + reaction
    torch.testing.assert_close(quantiles, expected)
    quantiles.square().sum().backward()
    for layer in (member.covariates_to_state, member.covariates_to_head, member.reaction_head):
        assert layer is None or (layer.weight.grad != 0).any(1).all()


def test_covariates_that_were_learnt_have_an_effect_on_their_segment_and_later_ones() -> None:
    member, segments = make_member(SEES, n_features=(1, 0, 1))
    changed = segments.covariates.clone()
    changed[1, 3] += 1.0

    before, after = (
        quantiles_of(member, segments),
        quantiles_of(member, segments._replace(covariates=changed)),
    )

    differs = (before - after).abs().amax((2, 3)) > 1e-6
    expected = torch.zeros(3, 6, dtype=torch.bool)
    expected[1, 3:] = True
    assert torch.equal(differs, expected)


def test_a_member_without_covariates_ignores_them() -> None:
    member, segments = make_member(replace(SEES, covariates=False), n_features=(1, 1, 1))
    assert torch.equal(
        quantiles_of(member, segments), quantiles_of(member, segments._replace(covariates=None))
    )
