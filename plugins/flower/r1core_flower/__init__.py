"""Federated rounds by Flower: see README.md."""
