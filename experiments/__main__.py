"""`python -m experiments [COMMAND]`; without a command, the embedded default."""

from experiments.training import allocator

if __name__ == "__main__":
    allocator.restart_with_huge_pages()
    from experiments.cli import main

    main()
