"""The finance domain: a recipe, data sets out of installed wheels, and nothing that a plugin already does."""
