"""The application of random programs: three layers of objects, each of which calls the next one, and what they use."""

from __future__ import annotations

from typing import Final

from perdure import ObjectContext, ObjectSharedContext, TerminalError, VirtualObject, app

from .random_interpreter import Interpreter, Layer
from .random_programs import LAYERS, Program
from .random_services import RETRY, VIOLATED, Look, count_of, helper, ritual, tally

TARGET: Final = "tests.conformance.random_layers:application"


def _layer(number: int, below: Layer | None) -> Layer:
    # The one in the middle reads its state name by name, the others have it at hand.
    definition = VirtualObject(f"Layer{number}", invocation_retry_policy=RETRY, state_preload=number != 1)

    @definition.handler()
    async def interpret(ctx: ObjectContext, program: Program) -> int:
        await Interpreter(ctx, layer, below).run(program)
        return len(program)

    @definition.handler()
    async def add(ctx: ObjectContext, amount: int) -> int:
        if await ctx.get("inside") is not None:
            raise TerminalError("violated: a program is inside", VIOLATED)
        ctx.set("count", await count_of(ctx) + amount)
        return amount

    @definition.handler(kind="shared")
    async def look(ctx: ObjectSharedContext) -> Look:
        return Look(await count_of(ctx), await ctx.get("inside", type_hint=str))

    layer = Layer(definition, interpret, add, look)
    return layer


def _layers() -> tuple[Layer, ...]:
    made: list[Layer] = []
    for number in reversed(range(LAYERS)):
        made.insert(0, _layer(number, made[0] if made else None))
    return tuple(made)


layers: Final = _layers()

application = app([*(layer.definition for layer in layers), tally, helper, ritual])
