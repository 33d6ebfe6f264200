"""Records on their way to the model: reading, quarantine, preparation, alignment with tokens, packing."""
