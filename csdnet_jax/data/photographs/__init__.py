"""From photographs of several leaves to a folder of single ones."""
