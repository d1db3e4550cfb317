import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import DataError, ModelFileError
from edgefl.layout import ROLES, Parameter, ParameterLayout

shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def parameter_lists(draw: st.DrawFn) -> list[Parameter]:
    names = draw(st.lists(st.text("abc/_0", min_size=1, max_size=8), unique=True, max_size=8))
    return [
        Parameter(name, f"model/{name}", draw(shapes), draw(st.sampled_from(ROLES)), draw(st.booleans()))
        for name in names
    ]


@given(parameter_lists())
def test_packing_the_views_of_a_vector_gives_the_vector(parameters: list[Parameter]) -> None:
    layout = ParameterLayout(parameters)
    vector = np.arange(layout.size, dtype=np.float32)
    assert np.array_equal(layout.pack(layout.views(vector)), vector)


@given(parameter_lists())
def test_the_vector_holds_weights_first_then_statistics_each_in_the_given_order(parameters: list[Parameter]) -> None:
    layout = ParameterLayout(parameters)
    expected = [p.name for role in ROLES for p in parameters if p.shared and p.role == role]
    assert list(layout.names) == expected
    assert layout.weight_size == sum(p.size for p in parameters if p.shared and p.role == "weight")
    assert layout.weight_size + layout.statistic_size == layout.size


def test_views_share_memory_with_the_vector() -> None:
    layout = ParameterLayout([Parameter("a", "m/a", (2,)), Parameter("b", "m/b", (3,), "statistic")])
    vector = np.zeros(5, np.float32)
    layout.views(vector)["b"][1] = 7
    assert vector.tolist() == [0, 0, 0, 7, 0]


def test_a_local_only_parameter_is_not_in_the_vector() -> None:
    layout = ParameterLayout([Parameter("a", "m/a", (2,), shared=False), Parameter("b", "m/b", (3,))])
    assert layout.names == ("b",)
    assert layout.size == 3


def test_the_hash_depends_on_names_shapes_roles_and_order_but_not_on_the_keras_path() -> None:
    def hashed(*parameters: Parameter) -> str:
        return ParameterLayout(parameters).hash

    a, b = Parameter("a", "m/a", (2,)), Parameter("b", "m/b", (2,))
    assert hashed(a, b) == hashed(Parameter("a", "other/a", (2,), buffer=9), b)
    different = {
        hashed(a, b),
        hashed(b, a),
        hashed(a, Parameter("b", "m/b", (2, 1))),
        hashed(a, Parameter("b", "m/b", (2,), "statistic")),
        hashed(a, Parameter("c", "m/b", (2,))),
    }
    assert len(different) == 5


def test_packing_names_what_is_missing_and_what_is_unknown() -> None:
    layout = ParameterLayout([Parameter("a", "m/a", (2,))])
    with pytest.raises(DataError, match=r"missing: \['a'\], unknown: \['b'\]"):
        layout.pack({"b": np.zeros(2)})


def test_packing_refuses_another_shape() -> None:
    layout = ParameterLayout([Parameter("a", "m/a", (2,))])
    with pytest.raises(DataError, match=r"expects shape \(2,\), got \(3,\)"):
        layout.pack({"a": np.zeros(3)})


def test_a_vector_of_another_length_or_type_is_refused() -> None:
    layout = ParameterLayout([Parameter("a", "m/a", (2,))])
    for vector in (np.zeros(3, np.float32), np.zeros(2, np.float64), np.zeros((2, 1), np.float32)):
        with pytest.raises(DataError, match="Expected a float32 vector"):
            layout.views(vector)  # type: ignore[arg-type]


def test_two_parameters_of_one_name_are_refused() -> None:
    with pytest.raises(ModelFileError, match="unique"):
        ParameterLayout([Parameter("a", "m/a", (2,)), Parameter("a", "n/a", (3,), shared=False)])
