"""Running handlers: the public API, attempts, admission, timers, Kafka, settings, command line.

Imports `perdure.schemas` and `perdure.journal`; aiokafka lives in `kafka` only. Import from the modules.
"""
