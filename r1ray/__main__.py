"""`python -m r1ray` is `r1ray`."""

from r1ray.cli import main

main()
