"""Engines: whatever turns a chat prompt and a grammar into text."""
