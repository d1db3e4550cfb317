"""The codes by which programs read why a server refuses something (docs/protocol.md)."""

from __future__ import annotations

from enum import Enum

__all__ = ["Refusal"]


class Refusal(str, Enum):
    """The member ``code`` of an error. It is the code's text: it compares, hashes and prints like it."""

    WRONG_TOKEN = "wrong_token"  # noqa: S105
    WRONG_POPULATION = "wrong_population"
    INVITATION_OVER = "invitation_over"
    IDENTITY_TAKEN = "identity_taken"
    UNKNOWN_DEVICE = "unknown_device"
    BLOCKED = "blocked"
    QUOTA_USED_UP = "quota_used_up"
    ROLE_NEEDED = "role_needed"

    NOT_FOUND = "not_found"
    BAD_RANGE = "bad_range"
    UNKNOWN_TASK = "unknown_task"
    ABANDONED = "abandoned"

    SURPLUS = "surplus"
    STALE = "stale"
    WRONG_OFFSET = "wrong_offset"
    SUPERSEDED = "superseded"
    WRONG_PROTOCOL = "wrong_protocol"
    WRONG_TASK = "wrong_task"
    WRONG_BASE_WEIGHTS = "wrong_base_weights"
    WRONG_LAYOUT = "wrong_layout"
    UNKNOWN_CODEC = "unknown_codec"
    WRONG_CODEC = "wrong_codec"
    WRONG_DIGEST = "wrong_digest"
    WRONG_LENGTH = "wrong_length"
    NOT_FINITE = "not_finite"
    NORM_EXCEEDED = "norm_exceeded"
    BAD_NUM_EXAMPLES = "bad_num_examples"
    BAD_METRICS = "bad_metrics"
    CONFLICTING_OUTCOME = "conflicting_outcome"

    UNKNOWN_RUN = "unknown_run"
    ENDED = "ended"
    NAME_TAKEN = "name_taken"
    BAD_MODEL_FILE = "bad_model_file"
    INVALID_SETTING = "invalid_setting"

    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REFUSED = "refused"
    TOO_MANY = "too_many"
    OVERLOADED = "overloaded"
    STORAGE_FULL = "storage_full"
    STORAGE_FAILED = "storage_failed"
    INTERNAL = "internal"

    def __str__(self) -> str:
        return str(self.value)
