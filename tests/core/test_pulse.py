"""How late the loop was."""

import pytest

from mailgate.core.pulse import Pulse


@pytest.mark.parametrize(
    ("beats", "now", "worst"),
    [
        ([(1.0, 0.1), (2.0, 0.0)], 2.1, 0.1),
        ([(1.0, 0.1), (2.0, 0.4), (3.0, 0.2)], 3.0, 0.4),
        ([(1.0, 0.4), (32.0, 0.1)], 32.0, 0.4),  # the window before counts
        ([(1.0, 0.4), (32.0, 0.1), (63.0, 0.2)], 63.0, 0.2),  # the one before that does not
        ([(1.0, 0.4), (99.0, 0.1)], 99.0, 0.1),
        ([(1.0, 0.1)], 7.25, 6.0),  # it is late at this moment
    ],
)
def test_the_worst_of_the_last_minute(beats: list[tuple[float, float]], now: float, worst: float) -> None:
    pulse = Pulse(every=0.25, beaten=0.0)
    for when, late in beats:
        pulse.beat(when, late)
    assert pulse.worst(now) == worst
    assert pulse.silent(now) == now - beats[-1][0]
