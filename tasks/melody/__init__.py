"""Melodies: skeletons, phrases, generation that keeps its promises, and chorales."""
