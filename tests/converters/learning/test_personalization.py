"""`build_personalization_eval`: clients before and after they have trained for themselves."""

from __future__ import annotations

import numpy as np
import pytest

from clients_of_keras import BATCH, by_hand, dataset, model_fn_of, plain, rich, rows, trainer
from edgefl import learning
from edgefl.errors import DataError, InvalidSettingError
from edgefl_simulation import Personalisation

CLIENTS = [
    {"train_data": dataset(21, 1).batch(BATCH), "test_data": rows(12, 2)},
    {"train_data": rows(16, 3), "test_data": dataset(9, 4).batch(4)},
    {"train_data": [], "test_data": rows(5, 5)},
    {"train_data": rows(16, 6), "test_data": []},
]


def own_way():
    def personalize(model, train_data, test_data):
        model.fit(*train_data, epochs=3, batch_size=8)
        return model.evaluate(*test_data) | {"rows": len(train_data[0])}

    return personalize


def test_it_says_what_keras_says_after_the_same_training():
    evaluate = learning.build_personalization_eval(
        model_fn_of(plain),
        {
            "twice": Personalisation(epochs=2),
            "a step": Personalisation(max_steps=1, learning_rate=0.5),
        },
    )
    state = trainer().initialize()
    found = evaluate(state, CLIENTS)
    assert list(found) == ["baseline_metrics", "twice", "a step"]
    assert all(list(values) == ["loss", "accuracy"] for values in found.values())
    model = plain()
    x, y = CLIENTS[0]["test_data"]
    model.set_weights(state.weights)
    assert found["baseline_metrics"]["loss"][0] == pytest.approx(model.evaluate(x, y, verbose=0)[0], rel=1e-4)
    weights, _, _ = by_hand(model, state.weights, CLIENTS[0]["train_data"].repeat(2).as_numpy_iterator())
    model.set_weights(weights)
    assert found["twice"]["loss"][0] == pytest.approx(model.evaluate(x, y, verbose=0)[0], rel=1e-4)
    assert found["twice"]["loss"][1] < found["baseline_metrics"]["loss"][1]
    # Who has nothing to train on stays as it is; of who has nothing to be tested on, nothing is known.
    assert found["twice"]["loss"][2] == found["baseline_metrics"]["loss"][2]
    assert np.isnan([values["accuracy"][3] for values in found.values()]).all()
    again = evaluate(state.weights, CLIENTS)
    assert all(
        np.array_equal(again[way][name], found[way][name], equal_nan=True) for way in found for name in found[way]
    )


def test_ways_of_ones_own_get_a_model_with_the_weights():
    evaluate = learning.build_personalization_eval(
        model_fn_of(plain),
        {"own": own_way},
        lambda model, test_data: {"outputs": float(model.predict(test_data[0]).sum())},
    )
    clients = [{"train_data": rows(16, number), "test_data": rows(12, 9)} for number in range(2)]
    found = evaluate(trainer().initialize(), clients)
    assert found["baseline_metrics"]["outputs"] == pytest.approx([12, 12], rel=1e-5)
    assert found["own"]["rows"].tolist() == [16, 16]
    assert len(set(found["own"]["loss"].tolist())) == 2
    alone = evaluate(trainer().initialize(), clients[1:])
    assert alone["own"]["loss"][0] == found["own"]["loss"][1]


@pytest.mark.slow
def test_of_many_clients_some_are_drawn():
    ways = {"one": Personalisation(epochs=1)}
    clients = [{"train_data": rows(24, number), "test_data": rows(8, number)} for number in range(5)]
    all_of_them = learning.build_personalization_eval(model_fn_of(rich), ways)(trainer(rich).initialize(), clients)
    some = learning.build_personalization_eval(model_fn_of(rich), ways, max_num_clients=2)
    found = some(trainer(rich).initialize(), clients)["one"]["loss"]
    assert len(found) == 2
    assert set(found) < set(all_of_them["one"]["loss"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"personalize_fn_dict": {}}, "at least one name"),
        ({"personalize_fn_dict": {"baseline_metrics": own_way}}, "none that is 'baseline_metrics'"),
        ({"personalize_fn_dict": {"wrong": 3}}, "expects a Personalisation or a function, got int"),
        ({"personalize_fn_dict": {"own": own_way}, "max_num_clients": 0}, "above 0, got 0"),
    ],
)
def test_what_asks_for_nothing_is_refused(arguments, said):
    with pytest.raises(InvalidSettingError, match=said):
        learning.build_personalization_eval(model_fn_of(plain), **arguments)


def test_a_client_without_both_kinds_of_data_is_named():
    evaluate = learning.build_personalization_eval(model_fn_of(plain), {"own": own_way})
    with pytest.raises(DataError, match="Client 0: A client expects a mapping of train_data and test_data"):
        evaluate(trainer().initialize(), [rows(8, 1)])
