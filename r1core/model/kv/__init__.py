"""A key/value cache of 4, 5 or 6 bits a number, for any Hugging Face causal language model."""
