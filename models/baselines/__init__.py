"""Baselines with the interface of ``NovelViewModel``: MVSNeRF and the point regression."""
