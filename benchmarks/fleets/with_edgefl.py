"""edgefl's own simulation."""

from __future__ import annotations

from typing import Any

import edgefl
from fleets.job import COHORT, EVALUATED, read_job, watched


def main() -> None:
    job = read_job()
    with watched() as watch:

        def after(row: dict[str, Any]) -> None:
            watch.round(row["outcomes"]["done"])
            if row["round"] == EVALUATED:
                watch.accuracy = row["central"]["accuracy"]

        edgefl.simulate(
            job.file,
            job.data,
            partition="natural-id",
            rounds=job.rounds,
            cohort=COHORT,
            workers=job.workers,
            seed=job.seed,
            evaluate_every=EVALUATED,
            evaluate_devices=0,
            on_round=after,
        )
    watch.finish()


if __name__ == "__main__":
    main()
