"""The zoo's truth holds when inputs are changed, and the audit says it; `cd tests && python -m zoo` prints counts."""

from __future__ import annotations

import pytest
import torch
from zoo.answers import RIGHT, of_planted, of_specimen
from zoo.changes import ROUNDING, heard, hull, movement, run
from zoo.fields import reach
from zoo.networks import SPECIMENS, Specimen
from zoo.planted import SEEN, draw

FAST = list(SPECIMENS)[::2][:20]


def _parameters(specimens):
    return [pytest.param(s, id=s.name, marks=() if s.name in FAST else pytest.mark.slow) for s in specimens]


ZOO = _parameters(SPECIMENS.values())
BLAMED = _parameters([s for s in SPECIMENS.values() if s.blamed()])
DRAWS = [i if i < 10 else pytest.param(i, marks=pytest.mark.slow) for i in range(200)]


def doubled(specimen: Specimen, mixing: bool = True):
    """The network and its inputs in double precision."""
    network = specimen.network(mixing).double()
    for part in network.modules():  # .double() leaves complex weights alone
        for name, value in part.named_parameters(recurse=False):
            if value.is_complex():
                setattr(part, name, torch.nn.Parameter(value.to(torch.cdouble)))
    return network, tuple(x.double() for x in specimen.inputs())


@pytest.mark.parametrize("specimen", ZOO)
def test_without_what_mixes_the_reach_is_the_formulas(specimen):
    if specimen.verdict == "not measured":
        pytest.skip("nothing can be measured on this input")
    network, inputs = doubled(specimen, mixing=False)
    changes = torch.stack([heard(network, inputs, specimen.dim, seed) for seed in range(2)]).amax(0)
    assert hull(changes) == reach(specimen.field, *changes.shape)


@pytest.mark.parametrize("specimen", ZOO)
def test_the_verdict_is_what_changes_say(specimen):
    network, inputs = doubled(specimen)
    output = run(network, inputs)
    if specimen.verdict == "not measured":
        assert output.std() == 0
        return
    moved = movement(network, inputs, specimen.dim, specimen.field)
    assert moved > SEEN if specimen.verdict in ("leaks", "global") else moved < ROUNDING
    assert bool(specimen.blamed()) == (specimen.verdict != "local")


@pytest.mark.parametrize("specimen", BLAMED)
def test_every_module_blamed_mixes_alone(specimen):
    if specimen.verdict == "not measured":
        pytest.skip("nothing can be measured on this input")
    whole, _ = doubled(specimen)
    for name in specimen.blamed():
        network, inputs = doubled(specimen, mixing=False)
        owner, _, own = name.rpartition(".")
        setattr(network.get_submodule(owner), own, whole.get_submodule(name))
        assert movement(network, inputs, specimen.dim, specimen.field) > SEEN, name


@pytest.mark.parametrize("index", DRAWS)
def test_a_planted_leak_moves_what_was_local(index):
    leak = draw(index, seed=0)
    changes = torch.stack([heard(leak.without, leak.inputs, leak.dim, seed) for seed in range(2)]).amax(0)
    assert hull(changes) == leak.reach()
    assert movement(leak.without, leak.inputs, leak.dim, leak.field) < ROUNDING
    assert movement(leak.network, leak.inputs, leak.dim, leak.field) >= SEEN
    assert leak.name in dict(leak.network.named_modules())


def test_a_draw_is_a_function_of_seed_and_index():
    first, again, other = draw(3, seed=0), draw(3, seed=0), draw(3, seed=1)
    assert torch.equal(run(first.network, first.inputs), run(again.network, again.inputs))
    assert (first.kind, first.strength) == (again.kind, again.strength)
    assert first.strength != other.strength


@pytest.mark.parametrize("specimen", ZOO)
def test_the_audit_says_the_truth(specimen):
    answer = of_specimen(specimen)
    assert answer.outcome == RIGHT, answer


@pytest.mark.parametrize("index", DRAWS)
def test_the_audit_names_a_planted_leak_and_raises_no_false_alarm(index):
    for answer in of_planted(draw(index, seed=0)):
        assert answer.outcome == RIGHT, answer
