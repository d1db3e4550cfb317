"""edgefl's own simulation."""

from __future__ import annotations

import edgefl
from fleets.job import COHORT, EVALUATED, read_job, watched


def main() -> None:
    job = read_job()
    settings = {"partition": "natural-id", "cohort": COHORT, "workers": job.workers, "seed": job.seed}
    settings["evaluate_devices"] = 0
    with watched() as watch:
        watch.accuracy = edgefl.simulate(
            job.file, job.data, rounds=EVALUATED, evaluate_every=EVALUATED, **settings
        ).final["accuracy"]
        edgefl.simulate(
            job.file,
            job.data,
            rounds=job.rounds,
            evaluate_every=0,
            on_round=lambda row: watch.round(row["outcomes"]["done"]),
            **settings,
        )
    watch.finish()


if __name__ == "__main__":
    main()
