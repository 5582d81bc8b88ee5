"""From a folder of photographs to batches: list, decode, prepare, feed."""
