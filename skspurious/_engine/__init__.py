"""The only training loop, and what it needs: batches, samplers, devices, checkpoints."""
