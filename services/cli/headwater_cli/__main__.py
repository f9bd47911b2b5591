"""`python -m headwater_cli`, which `./dev` runs."""

from headwater_cli.main import run

run()
