"""Folders ↔ models: locate and download, read configurations, map key names, load, merge, save."""
