"""Concept linking for r1core: HPO out of the box, the UMLS Metathesaurus from a user's own licensed files."""
