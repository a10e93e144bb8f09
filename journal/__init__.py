"""Deciding and keeping history: the pure machine, the retry policy, the store and its Lua scripts.

Imports `perdure.schemas`; the wire to Redis lives in `wire` (hiredis) and `redis_admin` (redis-py). Import from the modules.
"""
