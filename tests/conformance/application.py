"""The application of the conformance tests: every contract service, and the handlers for single properties."""

from __future__ import annotations

from perdure.worker.application import app

from .contract_failures import FAILURES
from .contract_objects import OBJECTS, awakeable_holder, counter
from .contract_services import SERVICES, utilities
from .core_cases import cases
from .core_failures import plain_cases
from .core_state import promises
from .interpreter import interpreter

application = app([*OBJECTS, *FAILURES, *SERVICES, cases, plain_cases, promises, interpreter])

# Fewer topics, for tests that start processes again and again.
small_application = app([counter.definition, awakeable_holder, utilities, cases])
