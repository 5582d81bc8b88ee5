"""The published settings, installed as `csdnet_jax.configs`."""
