"""The world: mazes on real MuJoCo, experts that walk them, and Minari datasets of their walks."""
