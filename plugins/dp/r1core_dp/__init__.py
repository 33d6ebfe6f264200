"""Differentially private training for r1core: sampling, clipping, noise, accounting and a ledger."""
