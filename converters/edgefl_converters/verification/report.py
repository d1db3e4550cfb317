"""The result of a verification: what ran where, every figure beside Keras's, and the error that follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgefl.errors import MissingDependencyError, VerificationError
from edgefl.parts import install_line
from edgefl.targets import ALL, included
from edgefl_converters.verification.evidence import Evidence, evidence
from edgefl_converters.verification.judging import Comparison

__all__ = ["REPORT_IT", "RuntimeReport", "VerificationReport"]

REPORT_IT = "Please report the model; until then, replace the layer that is named or the one after it."


@dataclass(frozen=True, repr=False)
class RuntimeReport:
    """Holds what one runtime did.

    Attributes:
        name: of the runtime's distribution.
        version: of it.
        ran: False when it is installed but cannot run here.
        reason: why it did not run; empty if it did.
        comparisons: every figure beside Keras's.
        broken_laws: laws that must hold to the last bit and did not.
    """

    name: str
    version: str
    ran: bool
    reason: str
    comparisons: Sequence[Comparison]
    broken_laws: Sequence[str]

    def __repr__(self) -> str:
        if not self.ran:
            return f"<RuntimeReport: {self.name} {self.version} did not run>"
        found = f"{len(self.comparisons)} figures agree" if self.passed else _complaint(self)
        return f"<RuntimeReport: {self.name} {self.version}: {found}>"

    @property
    def passed(self) -> bool:
        """True when nothing differs."""
        return self.ran and not self.broken_laws and all(each.passed for each in self.comparisons)

    @property
    def failures(self) -> list[Comparison]:
        """The figures that differ."""
        return [each for each in self.comparisons if not each.passed]

    @property
    def first_failure(self) -> Comparison | None:
        """The figure that differs closest to where it goes wrong.

        Errors of the gradient spread from the output to the input, so that is the last parameter that differs.
        """
        order = {kind: index for index, kind in enumerate(("infer", "gradient", "partial batch"))}
        return min(reversed(self.failures), key=lambda each: order.get(each.kind, len(order)), default=None)


@dataclass(frozen=True, repr=False)
class VerificationReport:
    """The whole verification of a file.

    Attributes:
        reference: what the exact results were computed in.
        learning_rate: of the training steps.
        steps: how many were taken.
        partial_rows: real rows of the padded batch; None where the model mixes rows, so that rows cannot be padded.
        runtimes: one report for each installed runtime that the target includes.
        target: what the file was made for, a name of `edgefl.targets`.
    """

    reference: str
    learning_rate: float
    steps: int
    partial_rows: int | None
    runtimes: Sequence[RuntimeReport]
    target: str = ALL

    def __repr__(self) -> str:
        return f"<VerificationReport: {'passed' if self.passed else 'not passed'}, {list(self.runtimes)}>"

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Tells which of the target's runtimes really ran, and which were only looked up."""
        return evidence(self.target, self.runtimes)

    @property
    def passed(self) -> bool:
        """True when at least one runtime ran and nothing differs on any."""
        ran = [report for report in self.runtimes if report.ran]
        return bool(ran) and all(report.passed for report in ran)

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "passed": self.passed,
            "reference": self.reference,
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "partial_rows": self.partial_rows,
            "evidence": [asdict(each) for each in self.evidence],
            "runtimes": [
                {
                    "name": report.name,
                    "version": report.version,
                    "ran": report.ran,
                    "reason": report.reason,
                    "passed": report.passed,
                    "worst": _worst(report.comparisons),
                    "broken_laws": list(report.broken_laws),
                    "comparisons": [{**asdict(each), "passed": each.passed} for each in report.comparisons],
                }
                for report in self.runtimes
            ],
        }

    def require(self) -> None:
        """Raises if anything differs.

        Raises:
            VerificationError: names the worst difference of the first runtime that differs.
            MissingDependencyError: no runtime is installed.
        """
        for report in self.runtimes:
            if report.ran and not report.passed:
                raise VerificationError(
                    f"On {report.name} {report.version} the model does not train as in Keras: {_complaint(report)}.",
                    hint=REPORT_IT,
                )
        if not any(report.ran for report in self.runtimes):
            reasons = " ".join(report.reason for report in self.runtimes) or "None is installed."
            targets = included(self.target)
            wanted = " or ".join(each.runtime for each in targets)
            raise MissingDependencyError(
                f"No TFLite runtime is here to verify the model on, expected {wanted}. {reasons}",
                hint=f"Install one with: {install_line('convert')}"
                if any(each.has_wheel() for each in targets)
                else f"Convert with another Python, or with `target='{ALL}'`, of which what is here is run: "
                f"{'; '.join(each.absence() for each in targets)}.",
            )


def _complaint(report: RuntimeReport) -> str:
    first = report.first_failure
    if first is None:
        return f"it breaks the law that {'; '.join(report.broken_laws)}"
    count = len(report.failures)
    return f"{first}{f' (and {count - 1} more)' if count > 1 else ''}"


def _worst(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Returns the figure of each kind that comes closest to its limit."""
    worst: dict[str, Comparison] = {}
    for each in comparisons:
        if each.kind not in worst or not each.error / (each.limit or 1) <= worst[each.kind].error / (
            worst[each.kind].limit or 1
        ):
            worst[each.kind] = each
    return {kind: {"name": each.name, "error": each.error, "limit": each.limit} for kind, each in worst.items()}
