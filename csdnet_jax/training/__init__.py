"""From a config to a workdir: build, restore, train, evaluate."""
