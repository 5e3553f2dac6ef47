"""What is said: names, instructions, questions, captions, in four languages."""
