"""How fast training, planning and rollouts are."""
