import pytest

from keras_deartifact.complexity import multiply_accumulates, parameters
from keras_deartifact.models import GENERATORS, make_generator
from training import architectures


@pytest.fixture(scope="module")
def table():
    """What the program prints, as lists of cells."""
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda *values, sep: lines.extend(values))
        architectures.main([])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_generator_has_its_rows(table):
    assert table[0][:4] == ["generator", "channels", "parameters", "GMAC"]
    assert {len(row) for row in table} == {6}
    assert [(row[0], row[1]) for row in table[2:]] == [(name, each) for name in GENERATORS for each in ("3", "1")]


def test_rows_by_hand(table):
    # tests/test_mobile.py, test_arcnn.py and test_complexity.py count these.
    assert ["fast", "3", "193,443", "51.0", "193,000", "51"] in table
    assert ["arcnn", "1", "106,561", "98.1", "107,000", "98"] in table
    assert ["arcnn", "3", "117,731", "108.4", "", ""] in table
    assert ["shuffle_nano", "3", "150,976", "4.8", "", ""] in table


def test_references_are_met(table):
    referenced = [row for row in table[2:] if row[4]]
    assert {(row[0], int(row[1])) for row in referenced} == set(architectures.REFERENCES)
    for name, channels, *numbers in referenced:
        counted, accumulates, reference, reference_accumulates = (float(each.replace(",", "")) for each in numbers)
        assert counted == pytest.approx(reference, rel=0.03), (name, channels)
        assert accumulates == pytest.approx(reference_accumulates, rel=0.03), (name, channels)


def test_cost_is_of_the_folded_network():
    generator = make_generator("shuffle_pico", channels=1)
    cost = architectures.cost("shuffle_pico", 1)
    assert (cost.name, cost.channels) == ("shuffle_pico", 1)
    assert cost.parameters == parameters(generator.fold()) < parameters(generator)
    assert cost.multiply_accumulates == multiply_accumulates(generator)
