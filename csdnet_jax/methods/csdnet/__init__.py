"""CSDNet: spotlighted leaves that teach each other by self-distillation."""
