"""Laws of profiles: whatever is read is a profile or refused, and being there is one fact, however it is asked."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl.errors import DataError, InvalidSettingError
from edgefl_simulation.profiles import FleetProfile, profile_of
from edgefl_simulation.profiles.availability import Diurnal, Markov, Member, back_at, gone_at
from edgefl_simulation.profiles.traces import Trace, read_trace

KEYS = ("devices", "attackers", "summary", "name", "like", "share", "compute", "network", "reliability", "availability")
SETTINGS = ("gflops", "up_mbit_s", "down_mbit_s", "factor", "hours", "mean_on_seconds", "drop_out", "file", "sources")
WORDS = st.sampled_from([*KEYS, *SETTINGS, "kind", "among", "pi4", "phone", "noise", "markov", "diurnal", "trace"])
VALUES = st.recursive(
    st.one_of(WORDS, st.floats(), st.integers(-3, 3), st.booleans(), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(WORDS, inner, max_size=5)),
    max_leaves=14,
)
DEVICE = st.fixed_dictionaries(
    {"like": st.just("pi4")}, optional=dict.fromkeys(("compute", "network", "share"), VALUES)
)
TABLES = st.one_of(
    st.dictionaries(WORDS, VALUES, max_size=4),
    st.fixed_dictionaries({"devices": st.lists(DEVICE, max_size=2)}, optional={"attackers": VALUES}),
)


@settings(max_examples=300, deadline=None)
@given(TABLES)
def test_any_table_is_a_profile_or_refused_with_a_message(table):
    with contextlib.suppress(InvalidSettingError, DataError):
        profile = profile_of(table)
        assert isinstance(profile, FleetProfile)
        assert not profile.devices or math.isclose(sum(each.share for each in profile.devices), 1, abs_tol=1e-3)


CELLS = st.one_of(
    st.sampled_from(["a", "b", "0", "5", "10", "on", "off", "", "-1", "nan", "1e999"]), st.text(max_size=3)
)
LINES = st.lists(st.lists(CELLS, min_size=1, max_size=5).map(",".join), max_size=5)


@settings(max_examples=200, deadline=None)
@given(LINES, st.booleans())
def test_any_text_is_a_trace_or_refused_with_a_message(lines, with_header):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.csv"
        text = "\n".join([*(["device,from,to,state"] if with_header else []), *lines])
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        with contextlib.suppress(DataError):
            assert isinstance(read_trace(path), Trace)


SECONDS = st.floats(0, 1e7)
RULES = st.one_of(
    st.builds(Diurnal, from_hour=st.floats(0, 24), hours=st.floats(0.01, 24), spread_hours=st.floats(0, 24)),
    st.builds(Markov, mean_on_seconds=st.floats(1, 1e5), mean_off_seconds=st.floats(1, 1e5)),
    st.just(Trace("", 40.0, {"x": ((10.0, 30.0, 40.0), (False, True, False)), "y": ((40.0,), (True,))})),
)


@settings(max_examples=200, deadline=None)
@given(RULES, st.integers(0, 50), SECONDS, st.floats(0, 1))
def test_a_device_is_there_from_when_it_is_back_until_it_goes(rule, device, now, share):
    who = Member(1, device, str(device))
    back = back_at(rule, who, now)
    assert back >= now
    gone = gone_at(rule, who, back)
    assert gone > back
    between = back + share * (min(gone, back + 1e6) - back)
    if between < gone:
        assert back_at(rule, who, between) == between
        assert gone_at(rule, who, between) == gone or math.isclose(gone_at(rule, who, between), gone, abs_tol=1e-3)
    if gone < math.inf:
        assert back_at(rule, who, gone) >= gone
