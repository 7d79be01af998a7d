"""What each alert is for, as series that Prometheus might have seen, and the moment at which it has to fire.

A value a minute, in promtool's notation: `1x5` is six ones, `0+2x5` counts up by two, `_` is no value.

`{@}` stands for the labels of one gate's samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Series = Mapping[str, str]
UP = {"up{@}": "1x100"}


@dataclass(frozen=True)
class Story:
    """In the course of `bad` the alert fires at the minute `at` with these labels, and not yet at `early`; in that of
    each of `well` it does not at `at`.
    """

    alert: str
    at: int
    bad: Series
    well: tuple[Series, ...]
    early: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    gate: bool = True  # do its labels name a gate?


def _histogram(name: str, low: str, high: str) -> Series:
    """Observations by minute, up to 1 s and up to 30 s, of a histogram whose labels begin `name`."""
    return {
        f'{name},le="1"}}': low,
        f'{name},le="30"}}': high,
        f'{name},le="+Inf"}}': high,
    }


_ALERTED = ("mailgate_ready{@}", 'mailgate_recipients_total{@,outcome="held"}', 'mailgate_unscored_total{@,reason="x"}')
_PRESENT = {**UP, **dict.fromkeys(_ALERTED, "1x9"), 'mailgate_upstream_up{@,upstream="mailman"}': "1x9"}
_FAILED = 'mailgate_messages_total{@,door="lmtp",verdict="failed"}'
_TOTAL = 'mailgate_stage_seconds_bucket{@,stage="total"'
_FDS, _MAX_FDS = "process_open_fds{@}", "process_max_fds{@}"
_STARTED, _LOST = "process_start_time_seconds{@}", "mailgate_history_lost_total{@}"

GATE = (
    Story("MailgateDown", 4, {"up{@}": "1 1 0x9"}, ({"up{@}": "1 0 0 1x9"},), early=3),
    Story("MailgateAbsent", 5, {'up{job="other"}': "1x9"}, ({"up{@}": "0x9"},), 4, {"job": "mailgate"}, gate=False),
    *(
        Story(
            "MailgateMetricsMissing",
            5,
            {one: values for one, values in _PRESENT.items() if not one.startswith(name)},
            (_PRESENT,),
            4,
            {"metric": name},
        )
        for name in ("mailgate_ready", "mailgate_upstream_up", "mailgate_recipients_total", "mailgate_unscored_total")
    ),
    Story("MailgateNotReady", 3, {"mailgate_ready{@}": "1 0x9"}, ({"mailgate_ready{@}": "1 0 0 1"},), early=2),
    Story("MailgateRestarting", 6, {_STARTED: "1 1 2 2 3 3 4x9"}, ({_STARTED: "1 1 2 2 3x9"},), early=5),
    Story(
        "MailgateOwnFault", 35, {_FAILED: "3x30 4x9"}, ({_FAILED: "3x50"},), 30, {"door": "lmtp", "verdict": "failed"}
    ),
    Story(
        "MailgateLoopSlow",
        9,
        {"mailgate_loop_lag_seconds{@}": "0x4 1.2x9"},
        ({"mailgate_loop_lag_seconds{@}": "0.4x9"},),
        5,
    ),
    Story(
        "MailgateSlow",
        30,
        _histogram(_TOTAL, "0+9x40", "0+10x40"),
        (_histogram(_TOTAL, "0+10x40", "0+10x40"),),
        10,
        {"stage": "total"},
    ),
    Story(
        "MailgateFilesExhausted", 10, {_FDS: "900x20", _MAX_FDS: "1024x20"}, ({_FDS: "800x20", _MAX_FDS: "1024x20"},), 9
    ),
    Story("MailgateHistoryLost", 7, {_LOST: "0x5 3x9"}, ({_LOST: "3x9"},), 5),
    Story(
        "MailgateClockWrong",
        10,
        {"mailgate_clock_seconds{@}": "40+60x20"},
        ({"mailgate_clock_seconds{@}": "20+60x20"},),
        9,
    ),
)

_REACHED = 'mailgate_upstream_up{@,upstream="mailman"}'
_SCORER_UP = 'mailgate_upstream_up{@,upstream="127.0.0.1:783"}'
_OLDEST = 'mailgate_mailman_queue_oldest_seconds{@,queue="%s"}'
_FILES = 'mailgate_mailman_queue_files{@,queue="%s"}'
_STALLED, _REST = "mailgate_mailman_stalled{@}", "mailgate_mailman_rest_up{@}"
_WATCHED = 'mailgate_mailman_watched{@,what="%s"}'
_RUNNER = 'mailgate_mailman_runners{@,runner="out"}'

MAILMAN = (
    Story(
        "MailgateMailmanUnreachable",
        6,
        {_REACHED: "1 0x9"},
        ({_REACHED: "1x9", _SCORER_UP: "0x9"},),
        5,
        {"upstream": "mailman"},
    ),
    Story("MailgateMailmanRestDown", 10, {_REST: "0x20"}, ({_REST: "1x20"},), 9),
    Story("MailgateMailmanStalled", 5, {_STALLED: "1x9"}, ({_STALLED: "0x9"},), 4),
    Story("MailgateMailmanRunnerDead", 5, {_RUNNER: "0x9"}, ({_RUNNER: "1x9"},), 4, {"runner": "out"}),
    Story(
        "MailgateMailmanQueueOld",
        10,
        {_OLDEST % "out": "1801x20"},
        ({_OLDEST % "out": "1800x20", _OLDEST % "retry": "9000x20", _OLDEST % "shunt": "900000x20"},),
        9,
        {"queue": "out"},
    ),
    Story(
        "MailgateMailmanShunted",
        61,
        {_FILES % "shunt": "5x59 6x9"},
        ({_FILES % "shunt": "5x90"}, {_FILES % "out": "0+9x90"}),
        58,
        {"queue": "shunt"},
    ),
    Story(
        "MailgateMailmanUnwatched",
        10,
        {_WATCHED % "queues": "0x2000"},
        ({_WATCHED % "queues": "1x90", _WATCHED % "runners": "1x90"}, UP),
        9,
        {"what": "queues"},
    ),
    # It does not go away by itself.
    Story(
        "MailgateMailmanUnwatched",
        1900,
        {_WATCHED % "queues": "0x2000"},
        ({_WATCHED % "queues": "1x2000"},),
        5,
        {"what": "queues"},
    ),
    Story(
        "MailgateMailmanUnwatched",
        14,
        {**UP, _WATCHED % "runners": "1x3 stale"},
        ({**UP, _WATCHED % "runners": "1x90"}, UP, {_WATCHED % "runners": "1x3 stale"}),
        13,
        {"what": "runners"},
    ),
)

_STATE = 'mailgate_spool_messages{@,state="%s"}'
_USED, _FREE = "mailgate_spool_bytes{@}", "mailgate_spool_free_bytes{@}"
_LEAST = "mailgate_spool_min_free_bytes{@}"
_MOST, _WRITABLE = "mailgate_spool_max_bytes{@}", "mailgate_spool_writable{@}"
_AGE = "mailgate_spool_oldest_seconds{@}"
_COMMIT = "mailgate_spool_commit_seconds_bucket{@"
_REPLAYS = 'mailgate_replays_total{@,outcome="%s"}'
_PAUSED = "mailgate_paused{@}"
_WAITS = {_STATE % "pending": "5x60", _STATE % "uncertain": "0x60", _REACHED: "1x60", _PAUSED: "0x60"}

SPOOL = (
    Story("MailgateSpoolUnknown", 5, UP, ({**UP, _USED: "0x9"},), 4),
    Story(
        "MailgateSpoolGrowing",
        25,
        {_STATE % "pending": "0+8x60"},
        ({_STATE % "pending": "0+6x60"}, {_STATE % "held": "0+8x60"}),
        15,
    ),
    Story("MailgateSpoolOld", 10, {_AGE: "1801x20"}, ({_AGE: "1800x20"},), 9),
    Story("MailgateSpoolExpiring", 10, {_AGE: "259201x20"}, ({_AGE: "259200x20"},), 9),
    # The spool takes no more from spool.min_free on, long before the disk is full.
    Story(
        "MailgateSpoolFillsUp",
        20,
        {_FREE: "10000-5x90", _LEAST: "9000x90"},
        ({_FREE: "10000-3x90", _LEAST: "9000x90"}, {_FREE: "10000x90", _LEAST: "9000x90"}),
        14,
    ),
    Story("MailgateSpoolFillsUp", 20, {_USED: "0+5x90", _MOST: "1000x90"}, ({_USED: "0+3x90", _MOST: "1000x90"},), 14),
    Story("MailgateSpoolNearFull", 5, {_FREE: "110x9", _LEAST: "100x9"}, ({_FREE: "112x9", _LEAST: "100x9"},), 4),
    Story("MailgateSpoolNearFull", 5, {_USED: "81x9", _MOST: "100x9"}, ({_USED: "80x9", _MOST: "100x9"},), 4),
    Story("MailgateSpoolUnwritable", 5, {_WRITABLE: "0x9"}, ({_WRITABLE: "1x9"},), 4),
    Story(
        "MailgateSpoolInodes",
        5,
        {"mailgate_spool_free_inodes{@}": "4999x9"},
        ({"mailgate_spool_free_inodes{@}": "5000x9"},),
        4,
    ),
    Story(
        "MailgateSpoolSlow",
        30,
        _histogram(_COMMIT, "0+9x40", "0+10x40"),
        (_histogram(_COMMIT, "0+10x40", "0+10x40"),),
        10,
    ),
    Story("MailgateSpoolForeign", 5, {"mailgate_spool_foreign{@}": "1x9"}, ({"mailgate_spool_foreign{@}": "0x9"},), 4),
    Story(
        "MailgateMailFailed",
        15,
        {_STATE % "failed": "3x20"},
        ({_STATE % "failed": "0x20", _STATE % "held": "9x20"},),
        14,
        {"state": "failed"},
    ),
    Story(
        "MailgateMailCorrupt",
        2,
        {_STATE % "corrupt": "0 0 1x9"},
        ({_STATE % "corrupt": "0x9"},),
        1,
        {"state": "corrupt"},
    ),
    Story("MailgatePaused", 180, {_PAUSED: "1x200"}, ({_PAUSED: "1x170 0 1x40"},), 179),
    Story(
        "MailgateReplayStuck",
        12,
        {**_WAITS, _REPLAYS % "delivered": "7x60"},
        (
            {**_WAITS, _REPLAYS % "delivered": "7x60", _REPLAYS % "deferred": "0+0.2x60"},
            {**_WAITS, _REPLAYS % "delivered": "7x60", _PAUSED: "1x60"},
            {**_WAITS, _REPLAYS % "delivered": "7x60", "mailgate_spool_foreign{@}": "1x60"},
            {**_WAITS, _REPLAYS % "delivered": "7x60", _STALLED: "1x60"},
            {**_WAITS, _REPLAYS % "delivered": "7x60", _REACHED: "0x60"},
            {**_WAITS, _REPLAYS % "delivered": "7x60", _STATE % "pending": "0x60"},
        ),
        9,
    ),
    Story(
        "MailgateReplayFailing",
        20,
        {_REPLAYS % "deferred": "0+2x60", _REPLAYS % "delivered": "0+1x60"},
        ({_REPLAYS % "deferred": "0+1x60", _REPLAYS % "delivered": "0+2x60"},),
        14,
    ),
)

_UNSCORED = 'mailgate_unscored_total{@,reason="timeout"}'
_SCORED = 'mailgate_spam_scans_total{@,result="scored",server="127.0.0.1:783"}'
_ACCEPTED = 'mailgate_messages_total{@,door="lmtp",verdict="accept"}'
_BREAKER = 'mailgate_breaker_open{@,upstream="%s"}'


def _slow(messages: int) -> str:
    """One each quarter of an hour."""
    return " ".join(f"{number}x14" for number in range(messages))


SPAM = (
    Story("MailgateUnscoredMail", 25, {_UNSCORED: "0+1x60"}, ({_UNSCORED: "0+0.6x60"},), 13),
    Story(
        "MailgateUnscoredShare",
        20,
        {_UNSCORED: "0+3x60", _SCORED: "0+7x60"},
        ({_UNSCORED: "0+2x60", _SCORED: "0+8x60"}, {_SCORED: "0x60"}),
        10,
    ),
    # A message each quarter of an hour, and from the third hour on none is scored.
    Story(
        "MailgateUnscoredShare",
        330,
        {_SCORED: f"{_slow(12)} 12x300", _UNSCORED: f"0x179 {_slow(20)}"},
        (
            {_SCORED: _slow(30), _UNSCORED: f"0x179 {_slow(20)}"},  # each second one is
            {_SCORED: "0x400", _UNSCORED: "0x299 1x15 2x99"},  # two are not many
            {_SCORED: f"{_slow(12)} 12x100 13x200", _UNSCORED: f"0x179 {_slow(4)} 4x300"},  # it is over
        ),
        270,
    ),
    Story(
        "MailgateNothingScored",
        330,
        {_ACCEPTED: "0+1x400", _SCORED: "0+1x200 stale"},
        (
            {_ACCEPTED: "0+1x400", _SCORED: "0+1x400"},
            {_ACCEPTED: "0+1x400", _SCORED: "0+1x200 200x200", _UNSCORED: "0x200 0+1x200"},
            {_ACCEPTED: "0+1x400"},
            {_ACCEPTED: "0+1x400", _SCORED: "0+0.125x200 stale"},
            {_ACCEPTED: "0+0.25x400", _SCORED: "0+1x200 stale"},
        ),
        250,
    ),
    Story(
        "MailgateScorerDown",
        10,
        {_BREAKER % "127.0.0.1:783": "1x20"},
        ({_BREAKER % "mailman": "1x20"},),
        9,
        {"upstream": "127.0.0.1:783"},
    ),
    Story(
        "MailgateBreakerFlapping",
        7,
        {_BREAKER % "mailman": "0 1 0 1 0 1 0 1 0"},
        ({_BREAKER % "mailman": "0 1 0 1 0 1 0x9"},),
        6,
        {"upstream": "mailman"},
    ),
)

_BROKEN = 'mailgate_network_list_broken{@,file="/etc/abuse.yaml"}'
_LISTS_FAILED = "mailgate_networks_failed{@}"
_SKIPPED = 'mailgate_network_list_skipped{@,file="/etc/abuse.yaml"}'
_LIST_AGE = 'mailgate_network_list_age_seconds{@,file="%s"}'
_NETWORKS = 'mailgate_networks{@,set="blocked_nets"}'
_DRIFT = 'mailgate_network_drift_total{@,context="ferm"}'
_DAYS_UP = {"up{@}": "1x1600"}

NETWORKS = (
    Story("MailgateNetworkListBroken", 10, {_BROKEN: "1x20"}, ({_BROKEN: "0x20"},), 9, {"file": "/etc/abuse.yaml"}),
    Story("MailgateNetworksFailed", 5, {_LISTS_FAILED: "1x20"}, ({_LISTS_FAILED: "0x20"},), 4),
    Story("MailgateNetworkListSkipped", 30, {_SKIPPED: "2x40"}, ({_SKIPPED: "0x40"},), 29, {"file": "/etc/abuse.yaml"}),
    Story(
        "MailgateNetworkListStale",
        60,
        {_LIST_AGE % "a": "604801x90"},
        ({_LIST_AGE % "a": "604801x90", _LIST_AGE % "b": "604740x90"},),
        59,
    ),
    Story(
        "MailgateNetworksShrunk",
        1460,
        {**_DAYS_UP, _NETWORKS: "1000x1440 499x90"},
        ({**_DAYS_UP, _NETWORKS: "1000x1440 500x90"},),
        1450,
    ),
    Story(
        "MailgateNetworksShrunk",
        1460,
        {**_DAYS_UP, _NETWORKS: "1000x1440 stale"},
        ({_NETWORKS: "1000x1440 stale"},),
        1450,
    ),
    Story("MailgateNetworkDrift", 7, {_DRIFT: "_x5 1x9"}, ({},), 4, {"context": "ferm"}),
    Story("MailgateNetworkDrift", 35, {_DRIFT: "3x30 4x9"}, ({_DRIFT: "3x50"},), 30, {"context": "ferm"}),
)

_PUT_OFF = 'mailgate_recipients_total{@,outcome="deferred"}'
_DELIVERED = 'mailgate_recipients_total{@,outcome="delivered"}'
_REASON = 'mailgate_reasons_total{@,reason="%s"}'
_REJECTED = 'mailgate_messages_total{@,door="lmtp",verdict="reject"}'
_ORIGIN = 'mailgate_origin_total{@,source="%s"}'
_JOINED = 'mailgate_verdicts_joined_total{@,result="%s"}'
_LIMITED = 'mailgate_limited_total{@,limit="network"}'
_DNS = 'mailgate_dns_queries_total{@,answer="%s"}'

MAIL = (
    Story(
        "MailgateNoMail",
        725,
        {_ACCEPTED: "0+0.5x600 300x200"},
        ({_ACCEPTED: "0+1x800"}, {_ACCEPTED: "0+0.25x600 150x200"}),
        700,
    ),
    Story(
        "MailgateDeferring",
        25,
        {_PUT_OFF: "0+3x60", _DELIVERED: "0+7x60"},
        ({_PUT_OFF: "0+2x60", _DELIVERED: "0+8x60"},),
        14,
    ),
    Story(
        "MailgateTurningAway",
        15,
        {_REASON % "too-many-connections": "0+1x30"},
        ({_REASON % "spam-hold": "0+9x30"}, {_REASON % "too-many-connections": "0+0.5x30"}),
        5,
        {"reason": "too-many-connections"},
    ),
    Story(
        "MailgateVerdictsUnusual",
        1560,
        {_ACCEPTED: "0+10x1500 15007+7x100", _REJECTED: "0+0.1x1500 153+3x100"},
        (
            {_ACCEPTED: "0+5x1600", _REJECTED: "0+5x1600"},
            {_ACCEPTED: "_x1510 0+7x100", _REJECTED: "_x1510 0+3x100"},
            {_ACCEPTED: "0+0.25x1600", _REJECTED: "0x1500 0+0.25x100"},
        ),
        1515,
        {"door": "lmtp", "verdict": "reject"},
    ),
    Story(
        "MailgateOriginUnknown",
        57,
        {_ORIGIN % "unknown": "0+0.25x60", _ORIGIN % "header": "0+2x60"},
        (
            {_ORIGIN % "unknown": "0+1x60", _ORIGIN % "header": "0+24x60"},
            {_ORIGIN % "unknown": "0+0.125x60", _ORIGIN % "header": "0+1x60"},
        ),
        25,
    ),
    Story(
        "MailgateNotAsked",
        57,
        {_JOINED % "joined": "0+0.5x60", _JOINED % "unknown": "0+0.75x60"},
        (
            {_JOINED % "joined": "0+6x60", _JOINED % "unknown": "0+4x60"},
            {_JOINED % "joined": "0+0.125x60", _JOINED % "unknown": "0+0.25x60"},
            {_JOINED % "joined": "0x60"},
        ),
        25,
    ),
    Story("MailgateLimiting", 15, {_LIMITED: "0+4x30"}, ({_LIMITED: "0+3x30"},), 5, {"limit": "network"}),
    Story(
        "MailgateDnsFailing",
        30,
        {_DNS % "timeout": "0+3x60", _DNS % "found": "0+7x60"},
        ({_DNS % "timeout": "0+2x60", _DNS % "found": "0+8x60"},),
        14,
    ),
)

STORIES = (*GATE, *MAILMAN, *SPOOL, *SPAM, *NETWORKS, *MAIL)
