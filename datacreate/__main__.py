"""`python -m datacreate`."""

from datacreate.cli.main import main

if __name__ == "__main__":
    main()
