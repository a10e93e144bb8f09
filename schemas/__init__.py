"""What is on the wire and on disk: ids, Kafka records, journal entries, limits and errors.

Imports pydantic and orjson, nothing else of ours. Import from the modules.
"""
