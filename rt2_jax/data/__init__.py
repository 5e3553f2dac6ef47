"""What training reads: prepared records, the schedule of a mixture, and the reader. No TensorFlow, no simulator."""
