"""Images with masks: where the pairs lie, and their batches."""
