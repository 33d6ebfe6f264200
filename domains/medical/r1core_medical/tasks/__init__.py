"""Tasks beside the main one, each a data set and a recipe over the domain's. Research, not clinical advice."""
