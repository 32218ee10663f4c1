"""The name of every metric; `catalogue` describes them."""

from enum import StrEnum


class Metric(StrEnum):
    """The name of every metric."""

    SIGN_INS = "latchstring_sign_ins_total"
    REFRESHES = "latchstring_refreshes_total"
    REPEATS = "latchstring_refresh_repeats_total"
    EVENTS = "latchstring_events_total"
    LIMITS_HIT = "latchstring_limits_hit_total"
    HASHES_PENDING = "latchstring_hashes_pending"
    HASHES_REFUSED = "latchstring_hashes_refused_total"
    HASH_WAIT = "latchstring_hash_wait_seconds"
    HASH = "latchstring_hash_seconds"
    REVOCATION_LAG = "latchstring_revocation_lag_seconds"
    REVOCATION_ENTRIES = "latchstring_revocation_entries"
    REVOCATION_POLLS = "latchstring_revocation_polls_total"
    REVOCATION_POLL = "latchstring_revocation_poll_seconds"
    KEY_AGE = "latchstring_key_age_seconds"
    DATABASE_ERRORS = "latchstring_database_errors_total"
    TRANSACTION = "latchstring_transaction_seconds"
    HTTP_REQUEST = "latchstring_http_request_seconds"
    HTTP_RESPONSES = "latchstring_http_responses_total"
    WORKERS = "latchstring_workers"
