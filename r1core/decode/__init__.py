"""Constrained generation: vocabularies as bytes, automata lifted to token masks, and their intersection."""
