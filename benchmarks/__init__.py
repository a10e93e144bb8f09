"""Fixed scenarios that say how fast Perdure is: `python -m benchmarks SCENARIO`. See README.md."""
