"""How unlike each other devices are, as figures, as a table and as a picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import InvalidSettingError
from edgefl_simulation.holdings.counting import count, gini, jensen_shannon, total_variation
from edgefl_simulation.holdings.picture import draw, write_picture
from edgefl_simulation.holdings.text import as_text


def holdings(counts, names=None, binned=False):
    """Holdings of devices with so many rows of each class, counted from labels as a partition leaves them."""
    labels = np.concatenate([np.repeat(np.arange(len(own)), own) for own in counts])
    ends = np.cumsum([sum(own) for own in counts])
    parts = np.split(np.arange(len(labels)), ends[:-1])
    return count(names or [f"device-{number:06d}" for number in range(len(counts))], parts, labels)


def test_rows_are_counted_by_device_and_class():
    found = holdings([[3, 0, 1], [2, 2, 2]])
    assert found.counts.tolist() == [[3, 0, 1], [2, 2, 2]]
    assert found.classes == ["0", "1", "2"]
    assert found.sizes.tolist() == [4, 6]
    assert found.whole.tolist() == [0.5, 0.2, 0.3]


def test_the_figures_are_what_their_definitions_say():
    # By hand: the shares are (1, 0) and (0, 1), together (1/2, 1/2).
    figures = holdings([[4, 0], [0, 4]]).figures()
    assert figures["total_variation"] == {"mean": 0.5, "largest": 0.5}
    divergence = 1 * np.log2(1 / 0.75) / 2 + (0.5 * np.log2(0.5 / 0.75) + 0.5 * np.log2(0.5 / 0.25)) / 2
    assert figures["jensen_shannon"]["mean"] == pytest.approx(np.sqrt(divergence))
    assert figures["effective_classes"] == pytest.approx(1)
    assert figures["classes_per_device"] == {"mean": 1, "smallest": 1}
    assert figures["size_variation"] == figures["size_gini"] == 0
    uneven = holdings([[1, 1], [3, 3]]).figures()
    assert uneven["total_variation"]["largest"] == 0
    assert uneven["effective_classes"] == pytest.approx(2)
    assert uneven["size_variation"] == pytest.approx(0.5)  # standard deviation 2, mean 4
    assert uneven["size_gini"] == pytest.approx(0.25)  # mean difference of two draws 2, over twice the mean
    assert (uneven["rows_smallest"], uneven["rows_median"], uneven["rows_largest"]) == (2, 4, 6)


@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any), min_size=1, max_size=6))
def test_distances_are_from_0_to_1_and_0_for_devices_that_are_like_all(counts):
    table = np.array(counts, float)
    shares = table / table.sum(axis=1, keepdims=True)
    whole = table.sum(axis=0) / table.sum()
    for distance in (total_variation, jensen_shannon):
        found = distance(shares, whole)
        assert ((found >= 0) & (found <= 1 + 1e-12)).all()
        assert distance(whole[np.newaxis], whole) == pytest.approx(0, abs=1e-7)
    assert total_variation(np.eye(3)[:1], np.eye(3)[1]) == jensen_shannon(np.eye(3)[:1], np.eye(3)[1]) == 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_gini_is_half_the_mean_difference_over_the_mean(sizes):
    values = np.array(sizes, float)
    expected = np.abs(values[:, np.newaxis] - values).mean() / 2 / values.mean()
    assert gini(values) == pytest.approx(expected, abs=1e-12)


def test_a_target_that_is_a_quantity_is_cut_into_tenths():
    quantities = np.random.default_rng(1).normal(size=500)
    order = np.argsort(quantities)
    found = count(["low", "high"], [order[:250], order[250:]], quantities)
    assert found.binned
    assert found.counts[0].tolist() == [50] * 5 + [0] * 5
    assert "its tenths are the classes" in as_text(found)
    assert not count(["a"], [np.arange(5)], np.array([0.0, 1.0, 2.0, 1.0, 0.0])).binned, "classes may be floats"


@pytest.mark.parametrize(
    ("devices", "classes", "name"),
    [(1, 2, "a"), (3, 10, "device-{}"), (50, 47, "person-{}"), (300, 200, "x" * 60 + "{}")],
)
def test_the_table_fits_80_columns_and_names_first_and_last(devices, classes, name):
    random = np.random.default_rng(1)
    counts = random.integers(0, 2000 // classes, (devices, classes)) + np.eye(devices, classes, dtype=int)
    counts[:, 0] += 1
    text = as_text(holdings(counts.tolist(), [name.format(number) for number in range(devices)]))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[1] == f"{counts[0].sum():,}"
    assert f"{counts.sum():,}" in text
    assert (f"of {devices} devices are shown" in text) == (devices > 20)


def test_a_bar_is_as_high_as_the_share_and_empty_for_nothing():
    lines = as_text(holdings([[8, 0, 0], [4, 2, 2], [0, 1, 999]])).splitlines()
    assert "█: 100%" in lines[0]
    bars = [line[42:] for line in lines[1:4]]
    assert lines[-6][42:] == "0 1 2"
    assert bars == ["█", "▄ ▂ ▂", "  ▁ █"]


def test_rows_without_classes_are_counted_and_shown_all_the_same():
    found = count(["a", "b"], [np.arange(3), np.arange(3, 10)], None)
    assert found.sizes.tolist() == [3, 7]
    assert "total_variation" not in found.figures()
    assert as_text(found).splitlines()[1].split() == ["a", "3"]
    assert len(draw(found, "two").axes) == 1


def test_a_picture_shows_rows_and_the_share_of_each_class(tmp_path):
    pytest.importorskip("matplotlib")
    found = holdings([[3, 0, 1], [2, 2, 2]])
    figure = draw(found, "a title")
    sizes, shares, colours = figure.axes
    assert [bar.get_height() for bar in sizes.patches] == [4, 6]
    assert np.allclose(shares.images[0].get_array(), found.shares.T)
    assert [label.get_text() for label in shares.get_yticklabels()] == ["0", "1", "2"]
    assert figure.get_suptitle() == "a title"
    assert colours.get_ylabel()
    for ending, begins in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        write_picture(found, "a title", tmp_path / f"who.{ending}")
        assert (tmp_path / f"who.{ending}").read_bytes().startswith(begins)
    with pytest.raises(InvalidSettingError, match=r"expects the ending .png, .pdf, .svg, got 'who.gif'"):
        write_picture(found, "a title", tmp_path / "who.gif")


def test_a_fleet_that_is_too_large_to_name_is_drawn_without_names(tmp_path):
    pytest.importorskip("matplotlib")
    random = np.random.default_rng(1)
    found = holdings((random.integers(0, 3, (60, 100)) + 1).tolist())
    write_picture(found, "many", tmp_path / "many.png")
    figure = draw(found, "many")
    assert len(figure.axes[1].get_yticklabels()) <= 40
    assert figure.axes[1].get_xlabel() == "device (of 60)"
