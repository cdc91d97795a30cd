"""Models of melodies and chorales."""
