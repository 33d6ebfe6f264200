"""Clinical rules as decode constraints: listed drug names that a rule forbids cannot be generated."""
