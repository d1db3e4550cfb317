"""edgefl's own simulation."""

from __future__ import annotations

import edgefl
from fleets.job import COHORT, read_job, watched


def main() -> None:
    job = read_job()
    with watched() as watch:
        history = edgefl.simulate(
            job.file,
            job.data,
            partition="natural-id",
            rounds=job.rounds,
            cohort=COHORT,
            workers=job.workers,
            seed=job.seed,
            evaluate_every=job.rounds,
            evaluate_devices=0,
            on_round=lambda row: watch.round(row["outcomes"]["done"]),
        )
    watch.finish(history.final["accuracy"])


if __name__ == "__main__":
    main()
