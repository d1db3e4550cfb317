"""TensorFlow Federated's loop, on the code that real devices and servers run.

    from edgefl import learning

    def model_fn():
        return learning.from_compiled_keras_model(compiled_keras_model(), sample_batch)

    trainer = learning.build_federated_averaging_process(model_fn)
    state = trainer.initialize()
    for _ in range(5):
        state, metrics = trainer.next(state, train_data)
        print(metrics.loss)

The names are those of `tff.learning` (the post "Introducing TensorFlow Federated" of 2019, and what came after it);
docs/coming-from.md says what differs. A client's work is `edgefl_device_runtime.tasks.perform`, a round ends with
`edgefl_server.aggregation.fold`. `processes.py` puts it together.
"""

from edgefl_simulation.evaluating import Personalisation
from edgefl_simulation.learning.averaging import ClientWeighting, ServerOptimizer, Sgd
from edgefl_simulation.learning.keras_models import Model, from_compiled_keras_model
from edgefl_simulation.learning.metrics import Metrics
from edgefl_simulation.learning.personalising import build_personalization_eval
from edgefl_simulation.learning.processes import (
    LearningProcess,
    LearningProcessOutput,
    build_fed_eval,
    build_federated_averaging_process,
    build_unweighted_fed_avg,
    build_weighted_fed_avg,
)
from edgefl_simulation.learning.states import ServerState

__all__ = [
    "ClientWeighting",
    "LearningProcess",
    "LearningProcessOutput",
    "Metrics",
    "Model",
    "Personalisation",
    "ServerOptimizer",
    "ServerState",
    "Sgd",
    "build_fed_eval",
    "build_federated_averaging_process",
    "build_personalization_eval",
    "build_unweighted_fed_avg",
    "build_weighted_fed_avg",
    "from_compiled_keras_model",
]
