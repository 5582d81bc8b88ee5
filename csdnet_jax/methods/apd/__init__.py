"""APD: adaptive perspective distillation (Tian et al., TPAMI 2022)."""
