"""Bad devices: the accuracy that is left under the worst of five attacks, for each rule, number and likeness of data.

10 honest devices with scikit-learn's digits and f = 1 to 4 bad ones. A device has a part of its rows (the similarity)
from all digits and the rest sorted by digit, so that at 0 it has one or two kinds. A network of 64, 32 and 10 units
makes 40 rounds of one epoch in batches of 20 with a rate of 0.3; the folds are edgefl's. All bad devices do the same:

- sign flip: minus the mean of the honest updates (Li et al. 2019)
- scaling: ten times what training towards other labels makes (Bagdasaryan et al. 2020)
- label flip: what training towards 9 - y makes (Fang et al. 2020)
- IPM: minus twice the mean of the honest updates (Xie et al. 2020)
- ALIE: their mean and 1.5 times their standard deviation (Baruch et al. 2019)

The accuracy is the mean of the last five rounds on held-out rows, in percent. ``robust`` is not told f; the other rules
are. ``f = 0`` is what a rule costs where nobody is bad.

    python benchmarks/robustness.py --json bench/robustness.json
    python benchmarks/robustness.py --similarities 0.66 --bad 2
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import EdgeflError
from edgefl_server.aggregation import STRATEGIES, Cohort, Strategy, Update, Updates
from edgefl_server.aggregation.hyperparameters import build
from edgefl_simulation.data import load_data

HONEST, ROUNDS, BATCH, RATE, LAST = 10, 40, 20, 0.3, 5
SHAPES = ((64, 32), (32,), (32, 10), (10,))
SIZE = sum(int(np.prod(shape)) for shape in SHAPES)
WITHIN = 5.0
"""Points that the default may lose with 2 bad devices and a similarity of 0.66 or more."""
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RULES: dict[str, dict[str, Any]] = {
    "mean (FedAvg)": {"weighting": "uniform"},
    "robust": {"strategy": "robust"},
    "median": {"rule": "median"},
    "trimmed-mean": {"rule": "trimmed-mean", "byzantine": None},
    "geometric-median": {"rule": "geometric-median"},
    "centered-clipping": {"rule": "centered-clipping", "radius": 1.0},
    "krum": {"rule": "krum", "byzantine": None},
    "multi-krum": {"rule": "multi-krum", "byzantine": None},
    "bulyan": {"rule": "bulyan", "byzantine": None},
    "nnm, krum": {"pre_aggregation": "nnm", "rule": "krum", "byzantine": None},
    "bucketing, median": {"pre_aggregation": "bucketing", "rule": "median"},
}
"""What each row is made of; None: f."""


def digits() -> tuple[Floats, Ints, Floats, Ints]:
    """All rows, a fifth of them held out."""
    whole = load_data("digits")
    x = np.asarray(whole.arrays["x"], float).reshape(-1, 64)
    y = np.asarray(whole.arrays["y"], np.int64).ravel()
    x = x / x.max()
    order = np.random.default_rng(0).permutation(len(x))
    held_out = len(x) // 5
    return x[order[held_out:]], y[order[held_out:]], x[order[:held_out]], y[order[:held_out]]


def divided(y: Ints, similarity: float, bad: int) -> Ints:
    """Rows of each device, ``[devices, rows]``; bad ones have all digits."""
    random = np.random.default_rng(1)
    order = random.permutation(len(y))
    own = len(y) // (HONEST + 4)
    honest, rest = order[: own * HONEST], order[own * HONEST :]
    alike = honest[: int(similarity * len(honest))]
    sorted_rows = honest[len(alike) :][np.argsort(y[honest[len(alike) :]], kind="stable")]
    parts = [
        np.concatenate([one, other])
        for one, other in zip(np.array_split(alike, HONEST), np.array_split(sorted_rows, HONEST), strict=True)
    ]
    parts += [rest[index * own : (index + 1) * own] for index in range(bad)]
    least = min(map(len, parts)) // BATCH * BATCH
    return np.array([random.permutation(part)[:least] for part in parts])


def unpacked(weights: Floats) -> list[Floats]:
    """The layers of vectors ``[devices, SIZE]``."""
    found, start = [], 0
    for shape in SHAPES:
        count = int(np.prod(shape))
        found.append(weights[:, start : start + count].reshape(-1, *shape))
        start += count
    return found


def trained(weights: Floats, x: Floats, y: Ints, round_number: int) -> Floats:
    """What devices have after an epoch, ``[devices, SIZE]``; all of them at once, each with its own rows."""
    devices, rows = y.shape
    state = np.tile(weights, (devices, 1))
    w1, b1, w2, b2 = unpacked(state)
    order = np.random.default_rng((2, round_number)).permutation(rows)
    for start in range(0, rows, BATCH):
        part = order[start : start + BATCH]
        given, wanted = x[:, part], np.eye(10)[y[:, part]]
        hidden = np.maximum(given @ w1 + b1[:, None], 0)
        scores = hidden @ w2 + b2[:, None]
        scores = np.exp(scores - scores.max(axis=2, keepdims=True))
        wrong = (scores / scores.sum(axis=2, keepdims=True) - wanted) / BATCH
        back = wrong @ w2.transpose(0, 2, 1) * (hidden > 0)
        w2 -= RATE * hidden.transpose(0, 2, 1) @ wrong
        b2 -= RATE * wrong.sum(axis=1)
        w1 -= RATE * given.transpose(0, 2, 1) @ back
        b1 -= RATE * back.sum(axis=1)
    return state


def accuracy(weights: Floats, x: Floats, y: Ints) -> float:
    w1, b1, w2, b2 = (each[0] for each in unpacked(weights[None]))
    return float(np.mean((np.maximum(x @ w1 + b1, 0) @ w2 + b2).argmax(axis=1) == y))


ATTACKS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "sign flip": lambda honest, own: np.tile(-honest.mean(axis=0), (len(own), 1)),
    "scaling": lambda honest, own: 10 * own,
    "label flip": lambda honest, own: own,
    "IPM": lambda honest, own: np.tile(-2 * honest.mean(axis=0), (len(own), 1)),
    "ALIE": lambda honest, own: np.tile(honest.mean(axis=0) + 1.5 * honest.std(axis=0, ddof=1), (len(own), 1)),
}
"""What bad devices send, from the honest updates and from what they make of other labels."""


def first_weights() -> Floats:
    random = np.random.default_rng(3)
    drawn = [random.normal(size=s) * np.sqrt(2 / s[0]) if len(s) == 2 else np.zeros(s) for s in SHAPES]
    return np.concatenate([each.ravel() for each in drawn])


def run(strategy: Strategy, data: tuple[Floats, Ints, Floats, Ints], parts: Ints, attack: str) -> float:
    """The accuracy that is left, in percent."""
    x, y, test_x, test_y = data
    bad = len(parts) - HONEST
    labels = y[parts]
    labels[HONEST:] = 9 - labels[HONEST:]
    state = strategy.init(first_weights().astype(np.float32), SIZE)
    found = []
    for number in range(ROUNDS):
        weights = state.weights.astype(float)
        deltas = trained(weights, x[parts], labels, number) - weights
        if bad:
            deltas[HONEST:] = ATTACKS[attack](deltas[:HONEST], deltas[HONEST:])
        # A server refuses what is longer than any training makes it.
        deltas = np.nan_to_num(deltas, posinf=0, neginf=0)
        updates = [
            Update(f"t{index:02d}", 100, {"delta": each}) for index, each in enumerate(deltas.astype(np.float32))
        ]
        state, _ = strategy.apply(state, Updates.of(updates), Cohort(len(updates), number))
        if not np.isfinite(state.weights).all():
            return 10.0
        if number >= ROUNDS - LAST:
            found.append(accuracy(state.weights.astype(float), test_x, test_y))
    return 100 * float(np.mean(found))


def strategy_of(settings: dict[str, Any], bad: int) -> Strategy:
    values = {name: bad if value is None else value for name, value in settings.items() if name != "strategy"}
    strategy: Strategy = build(STRATEGIES.get(settings.get("strategy", "fedavg")), values)
    if strategy.fewest > HONEST + bad:
        raise EdgeflError("too few devices")
    return strategy


def worst(settings: dict[str, Any], data: Any, similarity: float, bad: int) -> tuple[float, str]:
    """The lowest accuracy, and the attack that it comes from."""
    parts = divided(data[1], similarity, bad)
    strategy = strategy_of(settings, bad)
    return min((run(strategy, data, parts, attack), attack) for attack in (ATTACKS if bad else ("none",)))


def main() -> None:
    """Runs the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--similarities", default="1,0.66,0.33,0", help="which (default: %(default)s)")
    parser.add_argument("--bad", default="0,1,2,3,4", help="how many bad devices (default: %(default)s)")
    parser.add_argument("--rules", default=";".join(RULES), help="which, divided by semicolons (default: all)")
    arguments = parser.parse_args()
    similarities = [float(each) for each in arguments.similarities.split(",")]
    numbers: Iterable[int] = [int(each) for each in arguments.bad.split(",")]
    data, table = digits(), dict[str, dict[str, Any]]()
    for similarity in similarities:
        print(f"\n| similarity {similarity:g} | " + " | ".join(f"f = {bad}" for bad in numbers) + " |")
        print("|---" * (1 + len(list(numbers))) + "|")
        for name in map(str.strip, arguments.rules.split(";")):
            cells = []
            for bad in numbers:
                try:
                    value, attack = worst(RULES[name], data, similarity, bad)
                except EdgeflError:  # the rule needs more devices than there are
                    cells.append("–")
                    continue
                table.setdefault(f"{similarity:g}", {}).setdefault(name, {})[bad] = (round(value, 1), attack)
                cells.append(f"{value:.1f}" + (f" ({attack})" if bad else ""))
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    for similarity, rows in table.items():
        clean, left = (rows.get(name, {}) for name in ("mean (FedAvg)", "robust"))
        if float(similarity) >= 0.66 and 0 in clean and 2 in left and clean[0][0] - left[2][0] > WITHIN:
            print(f"similarity {similarity}: the default must stay within {WITHIN:g} points of {clean[0][0]}")
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
