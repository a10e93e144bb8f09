"""`python -m perdure`: the command line."""

from perdure.worker.cli import main

if __name__ == "__main__":
    main()
