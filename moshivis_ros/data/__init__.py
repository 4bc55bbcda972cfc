"""Data to fine-tune with: spoken dialogues about real pictures, written by a language model, and a robot's own recordings.

pictures -> script (endpoint or local model, prompts, filters) -> voices -> folder; bag -> folder.
"""
