"""Losses on logits (B, K, H, W) and integer targets (B, H, W), 255 = ignore."""
