"""Who may end leases, and when: `perdure.worker.contact`."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.journal.store import ALWAYS_MS
from perdure.worker.contact import GAP_MS_MIN, GAPS_MAX, Contact

LEASE_MS = 9_000
GAP_MS = LEASE_MS // 3
HOLD_MS = 2 * LEASE_MS // 3
LOOK_MS = 250
BEGIN_MS = 1_700_000_000_000


def heard(contact: Contact, times: Iterable[int]) -> int:
    """The store answers at each of these times; the last one."""
    last = 0
    for last in times:
        contact.heard(last)
    return last


def settled() -> tuple[Contact, int]:
    """A worker in contact for long, and its last answer."""
    contact = Contact(lease_ms=LEASE_MS)
    return contact, heard(contact, range(BEGIN_MS, BEGIN_MS + 60_001, LOOK_MS))


def permissions(contact: Contact, times: Iterable[int]) -> list[int]:
    """What the worker asks for after each answer."""
    asked = []
    for at_ms in times:
        contact.heard(at_ms)
        asked.append(contact.leases_until_ms)
    return asked


def test_who_has_heard_nothing_ends_nothing() -> None:
    """Nor who has heard something only just now: there may have been an outage before."""
    contact = Contact(lease_ms=LEASE_MS)
    assert contact.leases_until_ms == 0
    held = range(BEGIN_MS, BEGIN_MS + HOLD_MS, LOOK_MS)
    assert set(permissions(contact, held)) == {0}
    assert permissions(contact, [BEGIN_MS + HOLD_MS]) == [BEGIN_MS + HOLD_MS + GAP_MS]


def test_a_permission_lapses_in_a_silence() -> None:
    """A sweep that is executed later than a gap after the last answer has none any more."""
    contact, last_ms = settled()
    assert contact.leases_until_ms == last_ms + GAP_MS


@pytest.mark.parametrize("silence_ms", [GAP_MS + 1, LEASE_MS, 86_400_000, -GAP_MS - 1])
def test_after_a_silence_leases_are_held(silence_ms: int) -> None:
    """For two intervals of renewal after the first answer; a clock that was set back is one, too."""
    contact, last_ms = settled()
    back_ms = last_ms + silence_ms
    assert set(permissions(contact, range(back_ms, back_ms + HOLD_MS, LOOK_MS))) == {0}
    assert permissions(contact, [back_ms + HOLD_MS]) == [back_ms + HOLD_MS + GAP_MS]


def test_what_is_no_silence_holds_nothing() -> None:
    """A slow answer, or a clock that goes a little back, is nothing."""
    contact, last_ms = settled()
    assert all(permissions(contact, [last_ms + GAP_MS, last_ms + GAP_MS - 5]))


def test_short_leases_do_not_make_every_look_a_silence() -> None:
    """However short they are, looks at the usual pace are contact."""
    contact = Contact(lease_ms=500)
    assert permissions(contact, range(BEGIN_MS, BEGIN_MS + 2_000, LOOK_MS))[-1] == BEGIN_MS + 1_750 + GAP_MS_MIN


def test_a_store_that_flaps_holds_leases_each_time() -> None:
    """A second outage within the hold of the first one begins it anew."""
    contact, last_ms = settled()
    first_ms = last_ms + LEASE_MS
    second_ms = heard(contact, [first_ms, first_ms + LOOK_MS]) + LEASE_MS
    assert set(permissions(contact, range(second_ms, second_ms + HOLD_MS, LOOK_MS))) == {0}


def test_a_worker_that_stalls_for_ever_ends_leases_at_last() -> None:
    """Else a dead worker's invocations would wait as long as it stalls; once it is well all is as before."""
    contact, last_ms = settled()
    stalls = [last_ms + (GAP_MS + 1) * n for n in range(1, GAPS_MAX + 3)]
    assert permissions(contact, stalls) == [0] * GAPS_MAX + [ALWAYS_MS] * 2
    well_ms = heard(contact, range(stalls[-1], stalls[-1] + HOLD_MS + LOOK_MS, LOOK_MS))
    assert contact.leases_until_ms == well_ms + GAP_MS
    assert permissions(contact, [well_ms + LEASE_MS]) == [0]


@given(st.lists(st.integers(1, GAP_MS), max_size=60), st.integers(GAP_MS + 1, 10**9), st.lists(st.integers(1, GAP_MS)))
def test_no_lease_ends_soon_after_a_silence(before: list[int], silence_ms: int, after: list[int]) -> None:
    """Whatever the worker heard before, and however its looks come afterwards."""
    contact = Contact(lease_ms=LEASE_MS)
    now_ms = BEGIN_MS
    for step_ms in before:
        contact.heard(now_ms)
        now_ms += step_ms
    contact.heard(now_ms)
    back_ms = now_ms + silence_ms
    assert contact.leases_until_ms < back_ms
    contact.heard(back_ms)
    now_ms = back_ms
    for step_ms in after:
        # What leaves after the last answer may be executed by the time of the next one.
        assert contact.leases_until_ms == 0 or now_ms >= back_ms + HOLD_MS
        now_ms += step_ms
        contact.heard(now_ms)
