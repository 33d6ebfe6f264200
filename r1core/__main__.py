"""`python -m r1core`, as a launcher starts it."""

from r1core.cli.main import main

if __name__ == "__main__":
    main()
