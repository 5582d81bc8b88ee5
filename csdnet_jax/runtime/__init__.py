"""The ground: terminal, files, paths, processes, errors; knows no training."""
