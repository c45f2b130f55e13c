"""`python -m taxiway.cli`, where the `taxiway` script is not on the path."""

from taxiway.cli import main

main()
