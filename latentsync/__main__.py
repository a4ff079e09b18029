"""`python -m latentsync`: the command line, see `cli.main`."""

from .cli.main import run_process

if __name__ == "__main__":
    run_process()
