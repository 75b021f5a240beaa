"""What a model's files say: headers of safetensors, quantised layouts, bytes as stored."""
