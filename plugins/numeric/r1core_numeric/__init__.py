"""See the distribution's README."""
