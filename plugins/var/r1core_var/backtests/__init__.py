"""Tests of value-at-risk and expected shortfall forecasts against what happened."""
