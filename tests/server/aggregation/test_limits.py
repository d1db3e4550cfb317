from __future__ import annotations

import json

import pytest

from edgefl.algorithms import ALGORITHMS
from edgefl.layout import Parameter
from edgefl.model_file import ModelFile
from edgefl_server.aggregation import ModelLimits
from model_files import default_parameters, make_model_file


def limits_of(*parameters: Parameter, **settings) -> ModelLimits:
    return ModelLimits.of(ModelFile(make_model_file(parameters or None, **settings)).manifest)


def test_the_size_of_every_metric_state_is_that_of_the_signatures_output() -> None:
    limits = limits_of(batch_size=16)
    assert limits.states == {"loss_sum": 1, "rows": 1, "accuracy_total": 1, "accuracy_count": 1}
    assert limits.batch_size == 16
    assert limits_of(algorithms=ALGORITHMS).states == limits.states


@pytest.mark.parametrize(
    ("name", "is_variance"),
    [
        ("other/moving_variance", True),
        ("norm/moving_variance_1", True),
        ("mine/running_var", True),
        ("mine/var", True),
        ("norm/moving_mean", False),
        ("covariance_model/mean", False),
        ("mine/variable", False),
    ],
)
def test_a_statistic_is_a_variance_by_the_last_part_of_its_name(name: str, is_variance: bool) -> None:
    statistic = Parameter(name, f"m/{name}", (3,), role="statistic")
    limits = limits_of(*default_parameters(), statistic)
    # In the order of the layout: after the four of norm/moving_variance.
    assert limits.variances == (((0, 4), (4, 7)) if is_variance else ((0, 4),))


def test_weights_and_what_stays_on_the_device_are_no_variances() -> None:
    weight = Parameter("mine/variance", "m/mine/variance", (3,))
    local = Parameter("b/moving_variance", "m/b/moving_variance", (3,), role="statistic", shared=False)
    assert limits_of(*default_parameters(), weight, local).variances == ((0, 4),)


def test_limits_survive_json_and_an_earlier_servers_runs_have_those_of_the_loss() -> None:
    limits = limits_of()
    assert ModelLimits.from_json(json.loads(json.dumps(limits.to_json()))) == limits
    earlier = ModelLimits.from_json({})
    assert earlier.states == {"loss_sum": 1, "rows": 1}
    assert earlier.most_rows(5) == float("inf")


def test_a_last_batch_that_is_filled_up_counts_its_rows_again() -> None:
    assert [ModelLimits(8).most_rows(rows) for rows in (1, 8, 9)] == [8, 8, 16]
