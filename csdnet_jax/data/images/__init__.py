"""Images with labels: where they lie, their split, their batches."""
