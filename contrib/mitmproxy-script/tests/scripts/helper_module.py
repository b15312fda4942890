"""A module beside the scripts."""

NAME = "x-from-neighbour"
