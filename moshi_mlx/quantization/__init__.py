"""Fewer bits a weight, and the proof of what that costs."""
