"""Deciding and keeping history: the pure machine, the retry policy, the store and its Lua scripts.

Imports `perdure.schemas`; Redis is spoken to in `link` (hiredis) and `redis_line` (redis-py) only.
Import from the modules.
"""
