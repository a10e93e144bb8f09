"""Durable execution for Python on the Kafka and the Redis that a team already runs."""
