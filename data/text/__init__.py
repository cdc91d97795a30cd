"""Text becomes numbers."""
