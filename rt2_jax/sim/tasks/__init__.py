"""What is done: skills and their success, experts, episodes, splits and controls."""
