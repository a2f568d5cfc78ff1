"""MVSNeRF (Chen et al., ICCV 2021), after the paper and its public definition."""
