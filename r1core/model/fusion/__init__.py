"""Images for any causal language model: a vision tower, and three stages of fusion at insertion sites of the model.

`projection` brings both modalities to one width, `cross` lets text look at the image, `weighting` says per token how
much of either counts; `fusion` is the layer that the core attaches as it attaches a plugin's. `sight` says which tokens
see which images, `tower` and `pixels` open a Hugging Face image encoder.
"""
