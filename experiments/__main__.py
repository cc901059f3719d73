"""`python -m experiments [COMMAND]`; without a command, the embedded default."""

from experiments.cli import main

if __name__ == "__main__":
    main()
