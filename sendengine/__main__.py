"""`python -m sendengine`: the command line, where the `sendengine` script is not installed."""

from sendengine.cli import main

if __name__ == "__main__":
    main()
