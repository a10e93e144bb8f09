"""What an attempt knows of its object's state: `perdure.worker.state_view`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.worker.state_view import StateView


def test_without_anything_preloaded_only_own_writes_are_known() -> None:
    """The rest is for the store to say."""
    view = StateView(None)
    assert not view.knows("a")
    assert view.keys() is None
    view.set("a", b"1")
    view.clear("b")
    assert view.knows("a")
    assert view.knows("b")
    assert (view.value("a"), view.value("b")) == (b"1", None)
    assert not view.knows("c")
    assert view.keys() is None
    assert view.merged(["b", "c"]) == ["a", "c"]


def test_a_preloaded_state_is_known_as_a_whole() -> None:
    """Also which names are not there."""
    view = StateView({"b": b"2", "a": b"1"})
    assert view.knows("a")
    assert view.knows("nothing")
    assert (view.value("a"), view.value("nothing")) == (b"1", None)
    assert view.keys() == ["a", "b"]


def test_a_preloaded_part_is_known_by_its_names() -> None:
    """Of other names the store has to be asked, and for all names, too."""
    view = StateView({"a": b"1"}, names=["a", "absent"])
    assert view.knows("a")
    assert view.knows("absent")
    assert (view.value("a"), view.value("absent")) == (b"1", None)
    assert not view.knows("other")
    assert view.keys() is None


def test_names_without_a_state_are_not_known() -> None:
    """A large state is not preloaded, whatever names were asked for."""
    view = StateView(None, names=["a"])
    assert not view.knows("a")
    assert view.keys() is None


def test_after_clear_all_everything_is_known() -> None:
    """Nothing of the store counts any more, and what was written before neither."""
    view = StateView(None)
    view.set("a", b"1")
    view.clear_all()
    assert view.knows("anything")
    assert (view.value("a"), view.value("anything"), view.keys()) == (None, None, [])
    view.set("b", b"2")
    assert (view.value("b"), view.keys(), view.merged(["x"])) == (b"2", ["b"], ["b"])


def test_a_snapshot_does_not_see_later_writes() -> None:
    """It keeps what was known, and what was written, when it was made."""
    view = StateView({"kept": b"0"}, names=["kept"])
    view.set("a", b"1")
    before = view.snapshot()
    view.set("b", b"2")
    view.clear("a")
    view.clear_all()
    assert before.merged(["kept"]) == ["a", "kept"]
    assert before.value("kept") == b"0"
    assert not before.knows("b")


NAMES = st.sampled_from("abcd")
KINDS = st.sampled_from(["set", "clear", "clear_all", "flush"])
CHANGES = st.lists(st.tuples(KINDS, NAMES, st.binary(max_size=2), st.integers(min_value=1, max_value=20)), max_size=20)
"""What the handler does, and `flush`: so many of its writes reach the store, as far as there are any."""

Change = tuple[str, str, bytes, int]


def write(state: StateView | dict[str, bytes], change: Change) -> None:
    """Change the handler's state, or a dict in the same way."""
    match change:
        case ("set", name, value, _):
            if isinstance(state, dict):
                state[name] = value
            else:
                state.set(name, value)
        case ("clear", name, _, _):
            if isinstance(state, dict):
                state.pop(name, None)
            else:
                state.clear(name)
        case _:
            if isinstance(state, dict):
                state.clear()
            else:
                state.clear_all()


@settings(max_examples=300)
@given(
    stored=st.dictionaries(NAMES, st.binary(max_size=2)),
    preloads=st.booleans(),
    part=st.none() | st.frozensets(NAMES),
    changes=CHANGES,
)
def test_the_view_over_the_store_is_the_state(
    stored: dict[str, bytes], preloads: bool, part: frozenset[str] | None, changes: list[Change]
) -> None:
    """Whatever is preloaded and whatever has reached the store: the handler sees what a dict would hold."""
    view = StateView(dict(stored) if preloads else None, names=part)
    model, unflushed = dict(stored), list[Change]()
    for change in changes:
        kind, _, _, count = change
        if kind == "flush":
            for flushed in unflushed[:count]:
                write(stored, flushed)
            del unflushed[:count]
            continue
        write(view, change)
        write(model, change)
        unflushed.append(change)
        for name in "abcd":
            assert (view.value(name) if view.knows(name) else stored.get(name)) == model.get(name)
        assert view.merged(stored) == sorted(model)
        assert view.keys() in (None, sorted(model))
        assert view.snapshot().merged(stored) == sorted(model)
