"""What there is: things and their looks, the scene, its physics and its pictures."""
