from __future__ import annotations

from typing import Any

import pytest

from edgefl.algorithms import ALGORITHMS, Algorithm, algorithm, check_plain_sgd, check_supports, correcting
from edgefl.errors import InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl.model_file import ModelFile
from edgefl.wire.vocabulary import Correction
from model_files import make_model_file


def manifest(*algorithms: str) -> ModelManifest:
    return ModelFile(make_model_file(algorithms=algorithms)).manifest


def test_the_manifest_says_from_its_signatures_what_the_file_can_do() -> None:
    def abilities(*algorithms: str) -> tuple[bool, bool, bool]:
        found = manifest(*algorithms)
        return found.has_proximal_term, found.has_correction, found.has_gradient

    assert abilities() == (False, False, False)
    assert abilities("fedprox") == (True, False, False)
    assert abilities("scaffold") == (False, True, False)
    assert abilities("feddyn") == (True, True, False)
    assert abilities("fedsgd") == (False, False, True)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_file_takes_part_in_what_it_was_made_for_and_in_plain_training(algorithm: str) -> None:
    check_supports(manifest(algorithm), algorithm)
    check_supports(manifest(), "fedavg")
    with pytest.raises(InvalidSettingError, match=f"not made for {algorithm}") as refused:
        check_supports(manifest(), algorithm)
    option = f"(edgefl convert --algorithm {algorithm})"
    assert refused.value.hint == f"Convert the model again with `algorithms={algorithm!r}` {option}."


@pytest.mark.parametrize(
    ("optimizer", "found"),
    [
        ({"class_name": "Adam", "config": {"learning_rate": 0.1}}, "the optimizer Adam"),
        (None, "the optimizer None"),
        ({"class_name": "SGD", "config": {"learning_rate": {"class_name": "CosineDecay"}}}, "a learning rate that"),
        ({"class_name": "SGD", "config": {"learning_rate": 0.1, "momentum": 0.9}}, "SGD with momentum 0.9"),
        ({"class_name": "SGD", "config": {"learning_rate": 0.1, "clipnorm": 1.0}}, "SGD with clipnorm 1.0"),
        ({"class_name": "SGD", "config": {"learning_rate": 0.1, "weight_decay": 0.1}}, "SGD with weight_decay 0.1"),
    ],
)
def test_scaffold_is_for_plain_sgd_only(optimizer: Any, found: str) -> None:
    with pytest.raises(InvalidSettingError, match=found):
        check_plain_sgd(optimizer)


def test_kerass_plain_sgd_is_plain() -> None:
    config = {"learning_rate": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": None, "clipnorm": None}
    config |= {"global_clipnorm": None, "clipvalue": None, "use_ema": False, "gradient_accumulation_steps": None}
    check_plain_sgd({"class_name": "SGD", "config": config})


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_file_made_for_an_algorithm_is_a_reason_for_just_that_one(name: str) -> None:
    found = manifest(name)
    assert [each for each in ALGORITHMS if algorithm(each).is_reason_for(found)] == [name]


def test_what_is_not_in_the_table_needs_nothing() -> None:
    assert algorithm("fedavg") == algorithm("median") == Algorithm()
    assert Algorithm().sections == ("delta", "statistics")


def test_the_correction_of_a_task_leads_back_to_its_algorithm() -> None:
    assert correcting(Correction.SCAFFOLD) is algorithm("scaffold")
    assert correcting(Correction.FEDDYN) is algorithm("feddyn")
    assert correcting(Correction.NONE) == Algorithm()
