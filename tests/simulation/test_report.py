"""`edgefl report`: a page about runs side by side, opened in a real browser, and pictures."""

from __future__ import annotations

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import edgefl
from browser import CHROMIUM, look
from edgefl.errors import InvalidSettingError, RunError, StorageError
from edgefl_simulation.curves import flat_rows
from edgefl_simulation.picture import SERIES, Line, Picture, one_line, svg
from edgefl_simulation.profiles import profile_of
from edgefl_simulation.recorded import RecordedRun, RunState, read_run
from edgefl_simulation.report import report
from edgefl_simulation.report.comparing import (
    Compared,
    all_settings,
    differing_settings,
    failed_rounds,
    names_of,
    overview,
)
from edgefl_simulation.report.page import _DARK_SERIES
from edgefl_simulation.report.pictures import sections
from server_process import edgefl as command

SETTINGS = {"devices": 6, "partition": "iid", "rounds": 4, "cohort": 3, "workers": 1, "seed": 3}
ROGUE = "<script>alert(1)<|script> & $x_2$ 'q' \"_\" ü漢"
"""A run's name, as far as a file system allows it to be one."""

OTHERS = {
    "simulated": {"seconds": 3.0, "download": 0.5, "compute": 1.5, "upload": 0.5, "waiting": 0.5},
    "profiles": {"pi4": 2, "phone": 1},
    "attackers": 1,
    "personalised": {"devices": 3, "before": {"loss": {"mean": 1.5}}, "after": {"loss": {"mean": 1.25}}},
}
"""Values that rounds have where devices have profiles, and where they are asked once more after training."""

in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed: .ci/install chromium")


@pytest.fixture(scope="module")
def runs(plain_sgd_file, owned_once, tmp_path_factory):
    """Folders of a run that is done, one with another partition and name, and one that failed."""
    folder = tmp_path_factory.mktemp("runs")
    edgefl.simulate(plain_sgd_file, owned_once, out=folder / "plain", **SETTINGS)
    edgefl.simulate(plain_sgd_file, owned_once, out=folder / ROGUE, **SETTINGS | {"partition": "dirichlet:1,2"})
    with pytest.raises(RunError):
        edgefl.simulate(
            plain_sgd_file, owned_once, out=folder / "_failed", max_update_norm=1e-6, deadline_seconds=9, **SETTINGS
        )
    return folder


@pytest.fixture(scope="module")
def page(runs):
    """A report of all of them, with what else may lie in a row."""
    mark(runs / "plain", bytes_up=2_000_000, bytes_down=3_000_000, staleness=[0, 1, 1], **OTHERS)
    mark(runs / "_failed", why="<b>late</b>", errors=["<img src=//example.org/x>", "no\x1b[31m data"])
    report([runs / "plain", runs / ROGUE, runs / "_failed"], runs / "report.html", runs / "png")
    return runs / "report.html"


def mark(folder, **more):
    """Adds values to each of a run's rows."""
    rows = [json.loads(line) | more for line in (folder / "rounds.jsonl").read_text().splitlines()]
    (folder / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


class Elements(HTMLParser):
    """Elements of a page with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_the_page_is_one_file_that_asks_for_nothing_and_runs_nothing(page):
    elements = Elements(page.read_text()).found
    assert not [tag for tag, _ in elements if tag in ("script", "link", "img", "iframe", "object", "base", "form", "a")]
    attributes = [(name, value) for _, found in elements for name, value in found.items()]
    assert not [name for name, _ in attributes if name.startswith("on") or name == "style"]
    assert {value[0] for name, value in attributes if name in ("href", "xlink:href")} == {"#"}
    policy = next(found["content"] for tag, found in elements if found.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_ids_are_there_once_and_what_refers_to_them_finds_them(page):
    elements = [found for _, found in Elements(page.read_text()).found]
    ids = [found["id"] for found in elements if "id" in found]
    assert len(ids) == len(set(ids))
    wanted = {found["href"][1:] for found in elements if "href" in found}
    wanted |= {re.fullmatch(r"url\(#(.*)\)", found["clip-path"])[1] for found in elements if "clip-path" in found}
    assert wanted
    assert wanted <= set(ids)


def test_every_picture_is_told_in_words(page):
    pictures = [found for tag, found in Elements(page.read_text()).found if tag == "svg"]
    assert len(pictures) > 10
    assert all(found["role"] == "img" for found in pictures)
    assert all(re.search(r": (from )?\S+ at \S+( to \S+ at|;|\.)", found["aria-label"]) for found in pictures)


@in_a_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_a_browser_shows_it_without_a_complaint_at_every_width(page, width, dark):
    seen = look(page, width, dark=dark)
    assert (seen.asked, seen.said) == ([], [])
    assert seen.page["scripts"] == 0
    assert seen.page["needed"] == seen.page["width"] == width  # nothing sticks out
    assert seen.page["furthest"] <= width
    assert seen.page["smallest"] >= 9  # letters in pictures, also on a telephone
    assert seen.page["pictures"] == page.read_text().count('role="img"')
    dark_colours = [rgb(colour) for colour in _DARK_SERIES]
    assert rgb("#16191d" if dark else "#ffffff") == seen.page["ground"]
    assert set(dark_colours if dark else map(rgb, SERIES)) & set(seen.page["lines"])
    text = seen.page["text"]
    for name in ("plain", ROGUE, "_failed", "<b>late</b>", "<img src=//example.org/x>", "failed after 3 of 4 rounds"):
        assert name in text


@in_a_browser
def test_the_browser_of_these_tests_does_notice_what_a_page_asks_for(tmp_path):
    (tmp_path / "page.html").write_text(
        '<!DOCTYPE html><h1>x</h1><svg role="img" aria-label="x"><text>x</text></svg>'
        '<img src="https://example.org/x.png"><p style="width:900px">wide</p>'
    )
    seen = look(tmp_path / "page.html", 390)
    assert seen.asked == ["POST /violation"]
    assert len(seen.said) == 1
    assert seen.page["needed"] > 390


def rgb(colour):
    return f"rgb({int(colour[1:3], 16)}, {int(colour[3:5], 16)}, {int(colour[5:7], 16)})"


def test_pngs_are_the_page_s_pictures(page):
    names = {path.name for path in (page.parent / "png").iterdir()}
    assert {"accuracy-by-round.png", "loss-by-time.png", "accuracy-by-bytes.png", "loss-over-devices-2.png"} <= names
    assert {"bytes-by-round.png", "staleness-mean-by-round.png", "diagnostics-update_norm-by-round.png"} <= names
    assert {"phases-by-round-1.png", "updates-by-profile-1.png", "loss-after-local-training-1.png"} <= names
    assert len(names) == page.read_text().count('role="img"')
    for path in (page.parent / "png").iterdir():
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG")
        width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
        assert (width, height > 400) == (735, True)


def test_what_rounds_do_not_say_is_left_out(runs, tmp_path):
    shutil.copytree(runs / ROGUE, tmp_path / "bare")
    rows = [{"round": 1}, {"round": 2, "training": {"loss": float("nan")}, "outcomes": {"done": 3}}]
    (tmp_path / "bare" / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "bare" / "summary.json").unlink()
    found = Compared.of([read_run(tmp_path / "bare")])
    assert overview(found).rows == (("bare", "broken off after 2 of 4 rounds", "2", "–", "not a number"),)
    assert sections(found)[0].constant == ("The same in every round: outcomes done 3.",)
    (tmp_path / "bare" / "rounds.jsonl").write_text("")
    assert "None: no round is over yet" in report([tmp_path / "bare"], tmp_path / "r.html").page.read_text()


def recorded(name, rows, state=RunState.DONE, **settings):
    """A run of a report that was never simulated."""
    return Compared(name, RecordedRun(Path(name), state, settings, rows), flat_rows({}, rows))


def test_staleness_is_drawn_once_and_from_the_first_fold_on():
    stale = {"staleness": 1.5, "stalest": 2.0, "staleness_weight": 0.7}
    rows = [{"round": 1, "staleness": [0, 0]}, {"round": 2, "staleness": [1, 2], "diagnostics": stale}]
    rows.append({"round": 3, "staleness": [1, 1], "diagnostics": {**stale, "staleness": 1.0, "staleness_weight": 0.6}})
    pictures = {each.name: each for part in sections([recorded("a", rows)]) for each in part.pictures}
    assert list(pictures) == [f"staleness-{word}-by-round" for word in ("mean", "largest")] + [
        "diagnostics-staleness_weight-by-round"
    ]
    assert pictures["staleness-largest-by-round"].lines[0].y == (0, 2, 1)
    real = [{name: value for name, value in row.items() if name != "staleness"} for row in rows]
    names = [each.name for part in sections([recorded("a", real)]) for each in part.pictures]
    assert "diagnostics-staleness-by-round" in names


def test_runs_of_very_different_lengths_share_a_scale_on_which_both_are_seen():
    def rows(seconds):
        phases = {"simulated": {"compute": seconds, "waiting": 0.0}}
        return [
            {"round": number, "clock": number * seconds, "central": {"accuracy": number / 4}, **phases}
            for number in range(4)
        ]

    def pictures(*runs):
        return {each.name: each for part in sections(list(runs)) for each in part.pictures}

    near = pictures(recorded("a", rows(6.0)), recorded("b", rows(12.0)))
    assert not near["accuracy-by-time"].across_logarithmic
    assert near["accuracy-by-time"].lines[0].y == (0, 0.25, 0.5, 0.75)
    assert near["phases-by-round-1"].limits == near["phases-by-round-2"].limits
    far = pictures(recorded("a", rows(6.0)), recorded("b", rows(400.0)))
    assert far["accuracy-by-time"].across_logarithmic
    assert far["time-by-round"].logarithmic
    assert [line.y for line in far["accuracy-by-time"].lines] == [(0.25, 0.5, 0.75)] * 2
    assert not far["accuracy-by-round"].across_logarithmic
    begun = recorded("c", rows(6.0)[:1])  # of which there is nothing but the beginning
    assert pictures(recorded("a", rows(6.0)), recorded("b", rows(400.0)), begun)["accuracy-by-time"].across_logarithmic
    assert far["phases-by-round-1"].limits[1] < 10 < far["phases-by-round-2"].limits[1]
    assert b"<svg" in svg(far["accuracy-by-time"])


def test_settings_that_are_left_out_are_told_in_words_and_a_profile_beside_none_in_one_line():
    profile = {"devices": [{"name": "pi4", "share": 1.0, "network": {"up_mbps": 5}}], "attackers": [{"kind": "noise"}]}
    left_out = {"deadline_seconds": 0.0, "minimum": 0, "learning_rate": None, "codec": "float32", "mu": None}
    given = {"deadline_seconds": 9.0, "minimum": 2, "learning_rate": 0.5, "codec": "float32", "mu": 0.1}
    runs = [recorded("a", [], profile=None, **left_out), recorded("b", [], profile=profile, **given)]
    assert {row[0]: row[1:] for row in differing_settings(runs).rows} == {
        "deadline_seconds": ("for ever", "9"),
        "learning_rate": ("the model's", "0.5"),
        "minimum": ("the cohort", "2"),
        "mu": ("none", "0.1"),
        "profile": ("none", "pi4, attackers: noise"),
    }
    assert ("profile.devices.pi4.share", "–", "1") in all_settings(runs).rows
    other = recorded("c", [], profile={**profile, "attackers": []}, **given)
    assert [row[0] for row in differing_settings([runs[1], other]).rows] == ["profile.attackers.1.kind"]


def test_without_held_out_rows_the_overview_has_what_devices_said():
    table = overview([recorded("a", [{"round": 1, "federated": {"devices": 2, "loss": {"mean": 1.952}}}])])
    assert dict(zip(table.header, table.rows[0], strict=True))["loss over devices"] == "1.9520"


def test_a_run_in_real_time_has_no_simulated_time(runs, tmp_path):
    shutil.copytree(runs / ROGUE, tmp_path / "real")
    mark(tmp_path / "real", clock=None)
    found = Compared.of([read_run(tmp_path / "real")])
    table = overview(found)
    assert table.rows[0][table.header.index("simulated time")] == "–"
    names = [picture.name for section in sections(found) for picture in section.pictures]
    assert "loss-by-round" in names
    assert not [name for name in names if "time" in name]
    with pytest.raises(InvalidSettingError, match="no values of 'loss'"):
        edgefl.History.load(tmp_path / "real").plot("loss", against="time")


def test_a_run_that_diverges_does_not_hide_the_others(runs, tmp_path):
    shutil.copytree(runs / "plain", tmp_path / "tame")
    shutil.copytree(runs / ROGUE, tmp_path / "wild")
    path = tmp_path / "wild" / "rounds.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for place, row in enumerate(rows):
        for value in (row["central"], row["federated"]["loss"]):
            value.update(dict.fromkeys(("loss", "mean", "worst_tenth"), 10.0 ** (3 * place + 1)))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def scales(*names):
        found = Compared.of([read_run(tmp_path / name) for name in names])
        return {picture.name: picture.logarithmic for section in sections(found) for picture in section.pictures}

    assert not any(scales("tame").values())
    found = scales("tame", "wild")
    assert all(found[name] for name in ("loss-by-round", "loss-by-time", "loss-over-devices-2"))
    assert not found["loss-over-devices-1"]  # in a picture of its own it needs no room for the other one
    assert not any(logarithmic for name, logarithmic in found.items() if "accuracy" in name)
    page = report([tmp_path / "tame", tmp_path / "wild"], tmp_path / "r.html").page.read_text()
    assert "1.000e+10" in page


def test_settings_that_differ_are_listed_and_only_those(runs):
    found = Compared.of([read_run(runs / name) for name in ("plain", ROGUE, "_failed")])
    table = differing_settings(found)
    assert table.header == ("setting", "plain", one_line(ROGUE, 60), "_failed")
    assert {row[0]: row[1:] for row in table.rows} == {
        "deadline_seconds": ("for ever", "for ever", "9"),
        "max_update_norm": ("1000000", "1000000", "1e-06"),
        "partition": ("iid", "dirichlet:1,2", "iid"),
    }
    assert differing_settings(found[:1]).rows == ()


def test_kinds_of_devices_and_attackers_are_settings_one_by_one(runs, tmp_path):
    shutil.copytree(runs / "plain", tmp_path / "attacked")
    path = tmp_path / "attacked" / "settings.json"
    profile = profile_of(
        {"devices": [{"like": "pi4", "share": 1.0}], "attackers": [{"kind": "sign-flip", "share": 0.25}]}
    )
    path.write_text(json.dumps(json.loads(path.read_text()) | {"profile": profile.to_json()}))
    table = all_settings(Compared.of([read_run(tmp_path / "attacked")]))
    found = dict(table.rows)
    assert found["profile.attackers.1.kind"] == "sign-flip"
    assert found["profile.attackers.1.share"] == "0.25"
    assert "profile.devices.pi4.compute.gflops" in found
    assert not any("{" in value for value in found.values())


@pytest.mark.slow
def test_pictures_of_an_earlier_report_are_replaced_and_those_of_others_stay(runs, tmp_path):
    folder = tmp_path / "png"
    report([runs / "plain", runs / ROGUE], tmp_path / "r.html", folder)
    (folder / "mine.png").write_bytes(b"\x89PNG my own")
    before = {path.name for path in folder.iterdir()}
    done = report([runs / "plain"], tmp_path / "r.html", folder)
    after = {path.name for path in folder.iterdir()}
    assert after == {"mine.png", *(path.name for path in done.pictures)}
    assert before - after


def test_failed_rounds_say_why(runs, page):
    table = failed_rounds(Compared.of([read_run(runs / "_failed")]))
    assert [row[:2] for row in table.rows] == [("_failed", "1"), ("_failed", "2"), ("_failed", "3")]
    assert table.rows[0][2] == "<b>late</b>"
    assert table.rows[0][4] == "<img src=//example.org/x> / no [31m data"


def test_a_metric_that_stopped_to_be_a_number_is_said_to_and_the_best_value_is_named(runs):
    run = read_run(runs / "plain")
    for row, accuracy in zip(run.rounds, (0.5, 0.75, 0.25, float("nan")), strict=True):
        row["central"] = {"accuracy": accuracy}
    run.summary["initial"] = {}
    table = overview(Compared.of([run]))
    cell = table.rows[0][table.header.index("accuracy")]
    assert cell == "0.2500, then not a number (round 4) (best 0.7500, round 2)"


def test_runs_of_the_same_name_are_called_by_as_much_of_their_paths_as_tells_them_apart():
    assert names_of(["/a/x/run", "/b/x/run", "/b/y"]) == ["a/x/run", "b/x/run", "b/y"]
    assert names_of(["/a/x", "/b/y"]) == ["x", "y"]


def test_the_same_picture_is_the_same_bytes_and_a_name_is_neither_markup_nor_mathematics():
    picture = Picture("p", "by <b>round</b>", "round", "$y$", (Line("<i>&$x^2$", [1, 2], [0.5, 0.7], 7),))
    assert svg(picture) == svg(picture)
    text = svg(picture).decode()
    assert "&lt;i&gt;&amp;$x^2$" in text
    assert ">$y$<" in text


# Viénot, Brettel and Mollon (1999): what people without long- or middle-wave cones see, of linear RGB.
PROTAN = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
DEUTAN = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour):
    parts = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(light):
    """CIE L*a*b* of linear RGB: distances are as people see them."""
    x, y, z = np.cbrt(XYZ @ np.clip(light, 0, 1) / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(("colours", "ground"), [(SERIES, "#ffffff"), (_DARK_SERIES, "#16191d")], ids=["light", "dark"])
def test_colours_stand_out_and_colour_blind_people_tell_them_apart(colours, ground):
    behind = XYZ[1] @ linear(ground)
    for colour in colours:
        light, dark = sorted([XYZ[1] @ linear(colour), behind], reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3  # WCAG 2.1, 1.4.11
    for seen in (np.eye(3), PROTAN, DEUTAN):
        points = [lab(seen @ linear(colour)) for colour in colours]
        assert min(np.linalg.norm(one - other) for one, other in combinations(points, 2)) > 15


def test_the_command_writes_a_report_and_says_where(runs, page, tmp_path):
    out = tmp_path / "report.html"
    done = command("report", runs / "_failed", "-o", out, "--png", tmp_path / "png")
    assert done.returncode == 0, done.stderr
    assert "_failed: failed after 3 of 4 rounds" in done.stdout
    assert f"{out}: open it in a browser" in done.stdout
    assert "loss-by-round.png" in {path.name for path in (tmp_path / "png").iterdir()}
    again = command("report", runs / "plain", "-o", out, "--format", "json")
    document = json.loads(again.stdout)
    assert document["runs"] == [{"name": "plain", "folder": str(runs / "plain"), "state": "done", "rounds": 4}]
    assert document["pictures"] == []


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_without_what_it_needs_the_line_that_installs_it_is_named(runs, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    done = command("report", runs / "plain", "-o", tmp_path / "report.html", "--png", tmp_path / "png")
    assert done.returncode == 3
    assert "edgefl-toolkit[simulate]" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_report_replaces_a_report_and_nothing_else(runs, tmp_path):
    (tmp_path / "letter.html").write_text("dear")
    with pytest.raises(InvalidSettingError, match="is there already, and is no report"):
        report([runs / "plain"], tmp_path / "letter.html")
    assert (tmp_path / "letter.html").read_text() == "dear"
    with pytest.raises(InvalidSettingError, match="got the folder"):
        report([runs / "plain"], tmp_path)


def test_what_is_no_run_is_refused_and_nothing_is_written(runs, tmp_path):
    with pytest.raises(InvalidSettingError, match=r"no settings\.json in it"):
        report([runs / "plain", tmp_path], tmp_path / "report.html", tmp_path / "png")
    with pytest.raises(InvalidSettingError, match="each run once"):
        report([runs / "plain", runs / "png" / ".." / "plain"], tmp_path / "report.html")
    with pytest.raises(InvalidSettingError, match="at least one"):
        report([], tmp_path / "report.html")
    with pytest.raises(StorageError):
        report([runs / "plain"], tmp_path / "nowhere" / "report.html")
    assert list(tmp_path.iterdir()) == []
