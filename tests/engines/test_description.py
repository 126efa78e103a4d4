"""Amounts for people: bytes of files and of memory, and durations."""

import pytest

from ltxrt.engines.description import clock, duration, file_size, memory_size

CASES = [
    (file_size, 0, "0 B"),
    (file_size, 999, "999 B"),
    (file_size, 12_300, "12.3 kB"),
    (file_size, 999_600, "1000 kB"),
    (file_size, 9_500_000_000, "9.5 GB"),
    (file_size, 5e12, "5000 GB"),
    (memory_size, 1023, "1023 B"),
    (memory_size, 1536, "1.5 KiB"),
    (memory_size, 150 << 20, "150 MiB"),
    (memory_size, 5 << 40, "5120 GiB"),
    (clock, 0.4, "0:00"),
    (clock, 59.6, "1:00"),
    (clock, 754, "12:34"),
    (clock, 3723, "1:02:03"),
    (duration, 7.25, "7.2 s"),
    (duration, 754, "12 min 34 s"),
    (duration, 3723, "1 h 02 min"),
]


@pytest.mark.parametrize(("worded", "amount", "text"), CASES)
def test_amounts_are_for_people(worded, amount, text):
    assert worded(amount) == text
