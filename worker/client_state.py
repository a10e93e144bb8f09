"""The part of a client that reads and mends the state of objects and workflows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from perdure.schemas.errors import ConflictError, UsageError
from perdure.schemas.limits import KEY_LENGTH_MAX

from .client_connection import ClientConnection, Named, name_of
from .serde import DEFAULT_SERDE, Serde


class ClientState(ClientConnection):
    """State, from outside of handlers: for people who look, and who mend."""

    async def read_state(self, of: Named, key: str) -> dict[str, Any]:
        """The whole state as it was committed last: JSON's values by name, bytes where one is not JSON.

        Raises:
            UsageError: The object or the key cannot be one.
        """
        state = await self._store.read_state(_target(of, key))
        return {name: self._read(raw, DEFAULT_SERDE, None, what=name) for name, raw in sorted(state.items())}

    async def read_value(
        self, of: Named, key: str, name: str, serde: Serde[Any] = DEFAULT_SERDE, type_hint: Any = None
    ) -> Any:
        """One value of the state; `None` where there is none.

        Raises:
            UsageError: The object or the key cannot be one.
            SerdeError: It is not of that type.
        """
        raw = await self._store.read_value(_target(of, key), name)
        return (
            None if raw is None else self._read(raw, serde, type_hint, what=f"The state {name!r} of {_target(of, key)}")
        )

    async def set_state(
        self,
        of: Named,
        key: str,
        values: Mapping[str, object],
        serde: Serde[Any] = DEFAULT_SERDE,
        *,
        replace: bool = False,
        force: bool = False,
    ) -> None:
        """Write values, all in one transition.

        Args:
            of: The object.
            key: Its key.
            values: By name.
            serde: How they are written.
            replace: Whether all other values are removed.
            force: Also while a handler has the object. What it read already it has, and it may overwrite.

        Raises:
            ConflictError: A handler has the object, or the workflow's run has not ended: nothing was changed.
            UsageError: The object or the key cannot be one.
            SerdeError: A value cannot be written.
        """
        target = _target(of, key)
        written = [
            (name, self._written(value, serde, None, what=f"The state {name!r} of {target}"))
            for name, value in values.items()
        ]
        await self._edit(target, written, clear=replace, force=force)

    async def clear_state(
        self, of: Named, key: str, names: Iterable[str] | None = None, *, force: bool = False
    ) -> None:
        """Remove these values, or all; as `set_state`.

        Raises:
            ConflictError: A handler has the object, or the workflow's run has not ended: nothing was changed.
            UsageError: The object or the key cannot be one.
        """
        gone: list[tuple[str, bytes | None]] = [(name, None) for name in names or ()]
        await self._edit(_target(of, key), gone, clear=names is None, force=force)

    async def _edit(
        self, target: str, changes: Iterable[tuple[str, bytes | None]], *, clear: bool, force: bool
    ) -> None:
        holder = await self._store.edit_state(target, list(changes), clear=clear, force=force)
        if holder is not None:
            raise ConflictError(
                f"{target} is held by {holder}, which may write its state: nothing was changed. Wait until that ends, "
                "or force the change."
            )


def _target(of: Named, key: str) -> str:
    if not 0 < len(key) <= KEY_LENGTH_MAX:
        raise UsageError(f"A key has 1 to {KEY_LENGTH_MAX} characters, not {len(key)}.")
    return f"{name_of(of)}/{key}"
