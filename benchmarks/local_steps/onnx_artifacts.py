"""Writes what the contenders of the peers' environment read; run there, after keras_models.

    python -m local_steps.onnx_artifacts MODEL FOLDER

leaves FOLDER/torch.pt and, in FOLDER/onnx, the training graph, the optimizer's and the checkpoint for ONNX Runtime.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import onnx
import torch
from onnxruntime.training import artifacts

from local_steps.cases import CASES
from local_steps.torch_models import build, load_inputs, load_weights

OPSET = 15
"""From 17 on LayerNormalization is an op, whose gradient ONNX Runtime 1.19 cannot build; it finds it in the parts."""


def main() -> None:
    """Writes the files of one model."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    model = build(name)
    load_weights(name, model, folder)
    torch.save(model.state_dict(), folder / "torch.pt")
    target = folder / "onnx"
    target.mkdir(exist_ok=True)
    exported = target / "exported.onnx"
    # A base that normalises with its averages is exported as for inference: normalisations become part of convolutions.
    # Any BatchNormalization left in the graph would be turned into the training form.
    frozen_base = CASES[name].head_only
    mode = torch.onnx.TrainingMode.EVAL if frozen_base else torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (load_inputs(name, folder)[0],),
            exported,
            dynamo=False,
            opset_version=OPSET,
            training=mode,
            do_constant_folding=frozen_base,
        )
    trained = [key for key, value in model.named_parameters() if value.requires_grad]
    graph = onnx.load(exported)
    frozen = [each.name for each in graph.graph.initializer if each.name not in trained]
    artifacts.generate_artifacts(
        graph,
        requires_grad=trained,
        frozen_params=frozen,
        loss=artifacts.LossType.CrossEntropyLoss,
        optimizer=artifacts.OptimType.SGD,
        artifact_directory=target,
    )
    # It is written with the newest version of the format, which ONNX Runtime 1.19 does not read.
    for file in ("optimizer_model.onnx", "training_model.onnx"):
        written = onnx.load(target / file)
        written.ir_version = min(written.ir_version, 9)
        onnx.save(written, target / file)


if __name__ == "__main__":
    main()
