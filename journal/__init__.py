"""Deciding and keeping history: the pure machine, the retry policy, the store and its Lua scripts.

Imports `perdure.schemas`; Redis is spoken to in `wire` (hiredis) and `redis_admin` (redis-py) only.
Import from the modules.
"""
