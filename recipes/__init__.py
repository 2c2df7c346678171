"""Recipes: what a command reaches on public data, as a table that is written by the runs themselves."""
