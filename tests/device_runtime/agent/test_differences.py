"""Weights of which a device fetches how they changed."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.layout import Parameter
from edgefl.wire.differences import Difference, join

SIZE = 3000
OTHER = Difference.of(np.zeros(9, np.float32), np.zeros(0, np.float32), "drive", 1)


@pytest.fixture
def differing(rig, manifest, fake_trainer):
    """A rig whose server knows how versions of its weights follow each other, and answers with that."""
    rig.trainer = fake_trainer(manifest(parameters=(Parameter("kernel", "m/kernel", (SIZE,)),)))
    rig.versions = [np.zeros(SIZE, np.float32)]
    rig.steps = []
    for number in range(3):
        change = np.random.default_rng(number).normal(size=SIZE).astype(np.float32)
        rig.steps.append(Difference.of(change, np.zeros(0, np.float32), "drive", number))
        rig.versions.append(rig.steps[-1].applied(rig.versions[-1]))
    rig.hashes = [rig.server.add_content(each.tobytes()) for each in rig.versions]
    rig.answers = {}
    usual = rig.server.reply

    def reply(request):
        wanted = request.path.rpartition("/")[2]
        if request.headers.get("A-IM") == "edgefl" and wanted in rig.answers:
            base, content = rig.answers[wanted]
            return 226, content, {"ETag": f'"{wanted}"', "IM": "edgefl", "Delta-Base": f'"{base}"'}
        return usual(request)

    rig.server.reply = reply

    def fetched(version):
        """Does a task that starts from a version; how many bytes of weights came."""
        wanted = rig.hashes[version]
        rig.server.tasks = [rig.task(f"t{version}", base_weights_hash=wanted, base_weights_bytes=4 * SIZE)]
        assert rig.device().step().result == "accepted"
        assert rig.server.decoded(f"t{version}").base_weights_hash == wanted
        np.testing.assert_array_equal(
            np.fromfile(rig.folder / "state" / "cache" / "weights" / wanted, "<f4"), rig.versions[version]
        )

    rig.fetched = fetched

    def tell(version, since, content=None):
        made = join(each.encode() for each in rig.steps[since:version])
        rig.answers[rig.hashes[version]] = rig.hashes[since], made if content is None else content

    rig.tell = tell
    return rig


def whole(rig, version):
    """How often the whole weights of a version were asked for."""
    path = f"/v1/weights/{rig.hashes[version]}"
    return sum("A-IM" not in each.headers for each in rig.server.asked("GET", path))


def test_a_device_that_holds_earlier_weights_takes_how_they_changed(differing):
    rig = differing
    rig.fetched(0)
    rig.tell(1, 0)
    rig.fetched(1)
    rig.tell(3, 1)  # it skipped one
    rig.fetched(3)
    assert [whole(rig, version) for version in (0, 1, 3)] == [1, 0, 0]
    (asked,) = rig.server.asked("GET", f"/v1/weights/{rig.hashes[3]}")
    assert asked.headers["If-None-Match"] == f'"{rig.hashes[1]}", "{rig.hashes[0]}"'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"\xff" * 4 * SIZE,
        join([Difference.of(np.zeros(9, np.float32), np.zeros(0), "drive", 1).encode()]),
    ],
    ids=["nothing", "nonsense", "too long", "other weights"],
)
def test_a_difference_that_leads_elsewhere_costs_a_download_and_nothing_else(differing, content):
    rig = differing
    rig.fetched(0)
    rig.tell(1, 0, content)
    rig.fetched(1)
    assert whole(rig, 1) == 1


def test_a_difference_from_weights_that_are_damaged_or_not_there_is_not_taken(differing):
    rig = differing
    rig.fetched(0)
    (rig.folder / "state" / "cache" / "weights" / rig.hashes[0]).write_bytes(b"damaged")
    rig.tell(1, 0)
    rig.fetched(1)
    assert whole(rig, 1) == 1
    rig.answers[rig.hashes[2]] = "../../../etc/passwd", b"x"
    rig.fetched(2)
    assert whole(rig, 2) == 1


@pytest.mark.parametrize("kind", ["drop", "truncate", 503])
def test_a_link_that_breaks_is_tried_again(differing, fault, kind):
    rig = differing
    rig.fetched(0)
    rig.tell(1, 0)
    rig.server.faults = [fault("GET", "weights", kind)]
    rig.fetched(1)


def test_a_server_that_answers_with_the_weights_all_the_same_is_taken_at_its_word(differing):
    rig = differing
    rig.fetched(0)
    rig.fetched(1)
    assert whole(rig, 1) == 0  # one call, which offered to take a difference
