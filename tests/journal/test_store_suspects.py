"""The store's contract: invocations that are lost with their workers again and again."""

from __future__ import annotations

from perdure.journal.store import Claim, Lease
from perdure.journal.transitions import SUSPECT_AFTER, lost_delay_ms
from perdure.schemas.entries import AttemptFailed

from .store_contract import LEASE_MS, Bench, admitted, claimed, fields_of, run, sweep_all


async def lose(bench: Bench, lease: Lease) -> None:
    """Have the worker of an attempt die."""
    assert await bench.store.expire(lease.worker) == 1
    await sweep_all(bench)


async def suspect(bench: Bench) -> Claim:
    """An invocation that was lost so often that it is a suspect, claimed once more."""
    lease = await admitted(bench)
    for _ in range(SUSPECT_AFTER - 1):
        await lose(bench, lease)
        lease = (await claimed(bench, lease)).lease
    await lose(bench, lease)
    await bench.pass_ms(1_000)
    await sweep_all(bench)
    claim = await claimed(bench, lease)
    assert (claim.lost, claim.failures) == (SUSPECT_AFTER, SUSPECT_AFTER)
    return claim


async def test_what_is_lost_twice_goes_on_at_once(bench: Bench) -> None:
    """That happens to whoever runs where a machine fails."""
    lease = await admitted(bench)
    for lost in range(1, SUSPECT_AFTER):
        await lose(bench, lease)
        claim = await claimed(bench, lease)
        assert (claim.lost, claim.failures) == (lost, lost)
        lease = claim.lease


async def test_a_suspect_waits_longer_and_longer(bench: Bench) -> None:
    """From the third time in a row on, each time twice as long; the journal says how long."""
    lease = (await suspect(bench)).lease
    for lost, wait_ms in ((4, 2_000), (5, 4_000), (6, 8_000)):
        assert await bench.store.renew([lease], lease_ms=LEASE_MS, alone=True) != [None]
        await lose(bench, lease)
        assert (await fields_of(bench, lease.invocation_id))["status"] == "backing-off"
        assert await bench.store.renew([lease], lease_ms=LEASE_MS) == [None]
        await bench.pass_ms(wait_ms - 500)
        assert await sweep_all(bench) == []
        await bench.pass_ms(500)
        assert [due.invocation_id for due in await sweep_all(bench)] == [lease.invocation_id]
        claim = await claimed(bench, lease)
        assert (claim.lost, claim.failures) == (lost, lost)
        failed = claim.entries[-2].entry
        assert isinstance(failed, AttemptFailed)
        assert failed.retry_ms == wait_ms
        lease = claim.lease


async def test_a_suspect_that_had_not_begun_is_not_blamed(bench: Bench) -> None:
    """Its worker died while it waited for its turn: nothing is counted or written, and it goes on at once."""
    claim = await suspect(bench)
    await lose(bench, claim.lease)
    again = await claimed(bench, claim.lease)
    assert (again.lost, again.failures) == (claim.lost, claim.failures)
    assert len(again.entries) == len(claim.entries) + 1


async def test_progress_ends_the_suspicion(bench: Bench) -> None:
    """What gets something into its journal does not kill at once."""
    claim = await suspect(bench)
    await bench.store.append(claim.lease, [run(0)], after=len(claim.entries), seq=1, progress=True)
    await lose(bench, claim.lease)
    assert (await claimed(bench, claim.lease)).lost == 1


async def test_a_failure_of_its_own_ends_the_suspicion(bench: Bench) -> None:
    """Its worker lived to tell; the failures go on to count."""
    claim = await suspect(bench)
    length = len(claim.entries)
    await bench.store.back_off(claim.lease, [], after=length, seq=1, retry_in_ms=100, failure="boom")
    fields = await fields_of(bench, claim.lease.invocation_id)
    assert (fields["lost"], fields["failures"]) == ("0", str(SUSPECT_AFTER + 1))


def test_delays_are_bounded() -> None:
    """None at first, then doubling, up to a minute, however often it was."""
    assert [lost_delay_ms(lost) for lost in range(1, 6)] == [0, 0, 1_000, 2_000, 4_000]
    assert lost_delay_ms(9) == lost_delay_ms(10**9) == 60_000
