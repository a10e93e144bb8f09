"""An agent: a model says which tools to use, the tools' answers go back to the model, until it has an answer.

Each call of the model and each tool is a step. An agent that dies in its seventh round goes on there: what the model
has said is in the journal, and is neither paid for nor decided a second time. The model is a fake without a network.
Run it with `perdure dev examples.agent:application`, and then `perdure call Agent/ask '"How warm is Oslo, and Rome?"'`.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from examples.ledger import Ledger
from perdure import Context, RunOptions, Service, TerminalError, app, current_step, gather_results

agent = Service("Agent")

ROUNDS_MAX = 10
"""A model that wants more is going in circles."""


class ToolCall(BaseModel):
    """What the model wants to know."""

    tool: str
    argument: str


class Move(BaseModel):
    """What the model says: tools to use, or an answer."""

    tools: list[ToolCall] = []
    answer: str | None = None


# Models and tools fail now and then; after five tries of one step something is wrong with more than the network.
PATIENTLY = RunOptions[Move](max_attempts=5, initial_retry_interval=timedelta(milliseconds=20))
TOOL = RunOptions[str](max_attempts=5, initial_retry_interval=timedelta(milliseconds=20))


@agent.handler()
async def ask(ctx: Context, question: str) -> str:
    """Return the agent's answer."""
    conversation = [question]
    for _ in range(ROUNDS_MAX):
        move = await ctx.run_typed("think", think, PATIENTLY, conversation)
        if move.answer is not None:
            return move.answer
        # Side by side. Each result has its place in the journal, whichever comes first.
        calls = [ctx.run_typed(call.tool, use, TOOL, call) for call in move.tools]
        conversation += await gather_results(*calls)
    raise TerminalError(f"No answer in {ROUNDS_MAX} rounds.", status_code=508)


def think(conversation: list[str]) -> Move:
    """Ask the model: this one looks up what it does not know yet, and then sums up."""
    _record("think")
    question, *known = conversation
    cities = [city for city in WARMTH if city in question]
    missing = [city for city in cities if not any(city in line for line in known)]
    if missing:
        return Move(tools=[ToolCall(tool="thermometer", argument=city) for city in missing])
    return Move(answer="; ".join(known) or "I do not know.")


def use(call: ToolCall) -> str:
    """Use a tool."""
    if not _record(f"look at the thermometer of {call.argument}", refusals=1):
        raise ConnectionError("the thermometer does not answer")
    return f"{call.argument}: {WARMTH[call.argument]} degrees"


WARMTH = {"Oslo": 4, "Rome": 17}


def _record(effect: str, refusals: int = 0) -> bool:
    step = current_step()
    assert step is not None, "called as a step"
    return Ledger().record(step.invocation_id, effect, key=step.idempotency_key, refusals=refusals).done


application = app([agent])
