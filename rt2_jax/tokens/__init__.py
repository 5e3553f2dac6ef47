"""Vocabularies, action tokens and output grammars. No TensorFlow."""
