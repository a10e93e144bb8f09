"""The application's payload codec, for commands that show or send values; without it sealed ones are called sealed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure.journal.inspection import InvocationView
    from perdure.schemas.entries import Positioned
    from perdure.worker.payload_codec import PayloadCodec
    from perdure.worker.sealing import Sealer
    from perdure.worker.settings import Settings


def codec_of(settings: Settings) -> PayloadCodec | None:
    """The payload codec of the application that `--app` names.

    Raises:
        SettingsError: There is no such application.
    """
    if settings.app is None:
        return None
    from perdure.worker.application import load_application

    return load_application(settings.app).payload_codec


def sealer_of(settings: Settings) -> Sealer | None:
    """What opens values; `None` where no application was named, or it has no codec.

    Raises:
        SettingsError: There is no such application.
    """
    from perdure.worker.sealing import Sealer

    codec = codec_of(settings)
    return None if codec is None else Sealer(codec)


def opened(entries: Iterable[Positioned], sealer: Sealer | None) -> list[Positioned]:
    """Entries with their payloads opened.

    Raises:
        SerdeError: The codec is not the one that sealed them.
    """
    return [row if sealer is None else row._replace(entry=_opened(row.entry, sealer)) for row in entries]


def opened_view(view: InvocationView, sealer: Sealer | None) -> InvocationView:
    """An invocation with its outcome opened.

    Raises:
        SerdeError: As `opened`.
    """
    if sealer is None or view.outcome is None:
        return view
    return view._replace(outcome=sealer.open_outcome(view.outcome))


def _opened(entry: Any, sealer: Sealer) -> Any:
    # Any: every kind of entry that has a payload has it in one of these two fields.
    if getattr(entry, "outcome", None) is not None:
        return entry._replace(outcome=sealer.open_outcome(entry.outcome))
    if isinstance(getattr(entry, "value", None), bytes):
        return entry._replace(value=sealer.open(entry.value))
    return entry
