"""Fronts of kernels: as merging them pair by pair finds them, ties and all."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from nearflash.compiler.search import Choice, front, least, least_in_sequence, one_after_another, side_by_side


def parts_of(costs):
    ways = st.lists(st.tuples(st.integers(0, 6), costs), min_size=1, max_size=8)
    return st.lists(ways, max_size=4).map(lambda parts: [
        [Choice(steps, cost, {p: i}) for i, (steps, cost) in enumerate(part)] for p, part in enumerate(parts)])


#: Few values, so that many are equal: whole costs, as multipliers are, or shares of an FPGA.
PARTS = st.one_of(parts_of(st.integers(0, 6)), parts_of(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.7, 1.9])))


def pareto(choices):
    """Of all choices, in the order of steps, cost and place: those cheaper than all before."""
    out = []
    for c in sorted(choices, key=lambda c: (c.steps, c.cost)):
        if all(c.cost < before.cost for before in out):
            out.append(c)
    return out


def joined(some, steps):
    return Choice(steps, sum(c.cost for c in some), {k: v for c in some for k, v in c.kernels.items()})


@given(PARTS)
def test_a_front_is_what_nothing_beats(parts):
    for part in parts:
        assert front(part) == pareto(part)
    assert front([]) == []


@given(PARTS)
def test_in_sequence_steps_and_costs_add(parts):
    fronts = [pareto(part) for part in parts]
    want = [Choice(0, 0, {})]
    for part in fronts:
        want = pareto([joined((a, b), a.steps + b.steps) for a in want for b in part])
    got = one_after_another(fronts)
    assert got == want
    assert [type(c.cost) for c in got] == [type(c.cost) for c in want]  # multipliers stay whole
    for limit in range(26):
        best = least(want, limit)
        assert least_in_sequence(fronts, limit) == (best if best.steps <= limit else None)


@given(PARTS.filter(bool))
def test_side_by_side_the_slowest_counts(parts):
    every = [joined(some, max(c.steps for c in some)) for some in itertools.product(*map(pareto, parts))]
    got = side_by_side([pareto(part) for part in parts])
    assert [(c.steps, c.cost) for c in got] == [(c.steps, c.cost) for c in pareto(every)]
    for c in got:
        some = [part[c.kernels[p]] for p, part in enumerate(parts)]
        assert c == joined(some, max(x.steps for x in some))
