"""Pretrained weights in and out: transformers safetensors, big_vision npz and T5X folders, tensor by tensor."""
