"""The medical domain of r1core: composition of a model, plugins, a data set and rules. Not clinical advice."""
