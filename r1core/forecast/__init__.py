"""What a training will take, told from headers alone: weights trained, time, memory. Nothing here imports torch."""
