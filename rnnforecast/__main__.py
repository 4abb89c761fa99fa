"""`python -m rnnforecast` is the command line."""

from rnnforecast.entry import main

if __name__ == "__main__":
    main()
