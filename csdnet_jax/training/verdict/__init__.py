"""From a folder to a model: candidates compared by folds, the best trained."""
