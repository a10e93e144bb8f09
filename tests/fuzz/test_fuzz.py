"""A short run of each fuzz target, from a new seed each time; `make fuzz SECONDS=…` is the long one."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from perdure.worker import readings, record_source, sealing
from perdure.worker.clock import system_random
from tests.fuzz.mutation import BYTES_MAX, Mutator
from tests.fuzz.targets import TARGETS

INPUTS = 1_500
"""Of each target: about a second."""

FOUND = [
    ("ids", b"inv_" + b"0" * 27 + b":" + b"9" * 5_000 + b":1"),
    ("ids", "inv_{}:\N{ARABIC-INDIC DIGIT THREE}:1".format("0" * 27).encode()),
    ("record", b'\x00{"handler": "h", "caller": "inv_f%b:1:1"}' % (b"0" * 26)),
    ("subscribed", b"\x02!\xff\xffkey"),
    ("subscribed", b'\x00{"number": 7}'),
    ("arguments", b'"\xff"'),
    ("arguments", b"9" * 100_000),
    ("url", b"redis://:12?secret@host"),
    ("url", b"redis://host/" + b"9" * 5_000),
    ("url", b"user:secret@host:6379"),
    ("url", b"redis://user:1#secret@host"),
    ("reply", b"\x00%1\r\n%0\r\n$1\r\na\r\n"),
    ("reply", b"\x00HTTP/1.1 400 Bad Request\r\n"),
]
"""What has broken something once."""


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_whatever_the_bytes_it_is_read_or_refused(name: str) -> None:
    """Nothing but the errors that are meant comes out of any reader of others' bytes."""
    seed = system_random().randrange(2**32)
    mutator = Mutator(TARGETS[name].seeds, random.Random(f"{seed} {name}"))
    for data in TARGETS[name].seeds:
        TARGETS[name].check(data)
    for _ in range(INPUTS):
        data = mutator()
        try:
            TARGETS[name].check(data)
        except Exception as error:
            error.add_note(f"with {data!r}, which make fuzz SEED={seed} finds again")
            raise


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_broke_something_once_does_not_again(name: str, data: bytes) -> None:
    """The inputs that fuzzing found stay in the suite."""
    TARGETS[name].check(data)


def _takes_keys_for_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "_legible_key", lambda key: f"key:{key.decode()}")


def _forgets_the_key_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "source_of", lambda record, **_: record_source.source_of(record))


def _checks_no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "check_names", lambda headers: None)


def _shows_errors_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "text_of", str)


def _says_all_in_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "shorten", lambda text, _: text)


@pytest.mark.parametrize(
    "planted",
    [
        _takes_keys_for_text,
        _forgets_the_key_of_the_source,
        _checks_no_names,
        _shows_errors_as_they_are,
        _says_all_in_letters,
    ],
)
def test_planted_bugs_of_subscriptions_are_found(
    planted: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short run comes to keys, names and errors that nobody thought of."""
    planted(monkeypatch)
    target = TARGETS["subscribed"]
    mutator = Mutator(target.seeds, random.Random(7))

    def breaks(data: bytes) -> bool:
        try:
            target.check(data)
        except Exception:
            return True
        return False

    assert any(breaks(mutator()) for _ in range(INPUTS))


def _forgets_escapes(data: bytes) -> None:
    data.decode("ascii")


def _reads_any_number(data: bytes) -> None:
    for word in data.split():
        if word.isdigit():
            assert len(str(int(word))) < 100


@pytest.mark.parametrize("planted", [_forgets_escapes, _reads_any_number])
def test_planted_bugs_are_found(planted: Callable[[bytes], None]) -> None:
    """The mutations come to what readers trip over within a short run."""
    mutator = Mutator((b'{"a": 1 }', b"12 34"), random.Random(7))

    def breaks(data: bytes) -> bool:
        try:
            planted(data)
        except (ValueError, AssertionError):
            return True
        return False

    assert any(breaks(mutator()) for _ in range(INPUTS))


def test_a_seed_is_repeated() -> None:
    """What a run finds is found again with its seed, and nothing grows without end."""
    one, two = (Mutator(TARGETS["entry"].seeds, random.Random(3)) for _ in range(2))
    inputs = [one() for _ in range(500)]
    assert inputs == [two() for _ in range(500)]
    assert max(map(len, inputs)) <= BYTES_MAX
