"""The smallest program: one service, one handler, one step.

Run it with `perdure dev examples.greeter:application`, and then `perdure call Greeter/greet '"Ada"'`.
"""

from perdure import Context, Service, app

greeter = Service("Greeter")


@greeter.handler()
async def greet(ctx: Context, name: str) -> str:
    """Greet someone; the greeting is composed once, however often the worker dies."""
    return await ctx.run("compose", lambda: f"Hello, {name}!")


application = app([greeter])
