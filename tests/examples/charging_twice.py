"""The subscriptions with a planted bug: the card is charged twice."""

from __future__ import annotations

from examples import subscriptions

_charge = subscriptions.charge


def charge(credit_card: str, payment: str) -> str:
    """Charge, and charge again."""
    _charge(credit_card, payment)
    return _charge(credit_card, payment)


subscriptions.charge = charge
application = subscriptions.application
