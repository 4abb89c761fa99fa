"""The network: layers, loss, training, ensemble, artifact and checkpoint.

Libraries: numpy, pyarrow, safetensors, torch.
"""
