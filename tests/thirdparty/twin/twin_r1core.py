"""Registers under a name that another distribution has taken."""
