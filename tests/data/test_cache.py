"""Where the prepared files lie; test_pipeline has what is written there."""

from csdnet_jax.data.cache import cache_dir


def test_cache_honours_the_desktop_convention(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  assert cache_dir('') == tmp_path / 'csdnet_jax'
  monkeypatch.delenv('XDG_CACHE_HOME')
  monkeypatch.setenv('HOME', str(tmp_path))
  assert cache_dir('') == tmp_path / '.cache' / 'csdnet_jax'
  assert cache_dir('~/c') == tmp_path / 'c'
