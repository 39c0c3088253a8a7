"""Mutation testing, by hand: `.venv/bin/python -m tests.mutation --help`."""
