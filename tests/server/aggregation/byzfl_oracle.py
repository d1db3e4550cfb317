"""Answers what byzfl makes of vectors, in an environment of its own: `python byzfl_oracle.py IN.npz OUT.npz`."""

from __future__ import annotations

import sys
import types

import numpy as np


def without_torch() -> None:
    """Lets byzfl be imported where PyTorch is not: with arrays of numpy it only asks whether they are tensors."""
    torch = types.ModuleType("torch")
    torch.Tensor = type("Tensor", (), {})
    sys.modules["torch"] = torch
    for name in ("byzfl", "byzfl.utils", "byzfl.aggregators"):
        package = types.ModuleType(name)
        package.__path__ = [f"{FOLDER}/{name.partition('byzfl')[2].replace('.', '/')}"]
        sys.modules[name] = package
    sys.modules["byzfl.utils"].torch_tools = types.ModuleType("torch_tools")


def main() -> None:
    without_torch()
    from byzfl.aggregators import aggregators, preaggregators

    given = np.load(sys.argv[1])
    vectors, f = given["vectors"], int(given["f"])
    made = {
        "median": aggregators.Median(),
        "trimmed-mean": aggregators.TrMean(f),
        # Its Krum sums over n - f - 1 neighbours, one more than the paper has.
        "krum": aggregators.Krum(f + 1),
        "multi-krum": aggregators.MultiKrum(f + 1),
        "geometric-median": aggregators.GeometricMedian(),
        "centered-clipping": aggregators.CenteredClipping(L=3, tau=float(given["radius"])),
        "nnm": lambda whole: preaggregators.NNM(f)(whole).mean(axis=0),
        "nnm, trimmed-mean": lambda whole: aggregators.TrMean(f)(preaggregators.NNM(f)(whole)),
        "nnm, krum": lambda whole: aggregators.Krum(f + 1)(preaggregators.NNM(f)(whole)),
        "norm-bound": lambda whole: preaggregators.Clipping(float(given["bound"]))(whole).mean(axis=0),
    }
    np.savez(sys.argv[2], **{name: rule(vectors.copy()) for name, rule in made.items()})


if __name__ == "__main__":
    import importlib.util

    spec = importlib.util.find_spec("byzfl")
    FOLDER = spec.submodule_search_locations[0]
    main()
